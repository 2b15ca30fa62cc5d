package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/clientcmd"

	"lighter.dev/lighter/cmd/lighter/local"
)

// adminKubeconfig is what "lighter server" writes on its own host.
const adminKubeconfig = "/var/lib/lighter/server/admin.kubeconfig"

// defaultKubeconfig chooses a kubeconfig for those who gave none. In this order:
// --kubeconfig, $KUBECONFIG, the admin's on a server's host, ~/.kube/config, and
// if there is none of these the only local cluster.
func defaultKubeconfig() {
	if os.Getenv(clientcmd.RecommendedConfigPathEnvVar) != "" {
		return
	}
	home, _ := os.UserHomeDir()
	path := chooseKubeconfig(readable, filepath.Join(home, ".kube", "config"), onlyLocalCluster)
	if path != "" {
		_ = os.Setenv(clientcmd.RecommendedConfigPathEnvVar, path) // fails on a NUL only
	}
}

// chooseKubeconfig returns "" where clients find the right file by themselves.
func chooseKubeconfig(readable func(string) bool, ofUser string, localCluster func() string) string {
	switch {
	case readable(adminKubeconfig):
		return adminKubeconfig
	case readable(ofUser):
		return ""
	}
	if path := localCluster(); path != "" && readable(path) {
		return path
	}
	return ""
}

func readable(path string) bool { return unix.Access(path, unix.R_OK) == nil }

func onlyLocalCluster() string {
	clusters, err := local.List()
	if err != nil || len(clusters) != 1 {
		return ""
	}
	return clusters[0].Kubeconfig()
}
