package fence

import (
	"strings"
	"testing"
)

// edge forbids packages below from to import packages below to. Paths end in a
// slash; those without a dot are ours.
type edge struct{ from, to, reason string }

const star = "controller, agent and overlay meet in API objects, in the agent's HTTPS endpoint and in interfaces that the consumer declares; cmd/lighter alone knows all three"

var forbidden = []edge{
	{"api/", "controller/", "api is what all others share: it knows none of them"},
	{"api/", "agent/", "api is what all others share: it knows none of them"},
	{"api/", "overlay/", "api is what all others share: it knows none of them"},
	{"controller/", "agent/", star},
	{"controller/", "overlay/", star},
	{"agent/", "controller/", star},
	{"agent/", "overlay/", star},
	{"overlay/", "controller/", star},
	{"overlay/", "agent/", star},
	{"api/", "cmd/", "nobody imports the commands"},
	{"controller/", "cmd/", "nobody imports the commands"},
	{"agent/", "cmd/", "nobody imports the commands"},
	{"overlay/", "cmd/", "nobody imports the commands"},
	{"cmd/lighter/", "controller/", "what lies below cmd/lighter are clients; only package main wires the daemons"},
	{"cmd/lighter/", "agent/", "what lies below cmd/lighter are clients; only package main wires the daemons"},
	{"cmd/lighter/", "overlay/", "what lies below cmd/lighter are clients; only package main wires the daemons"},

	{"agent/", "go.etcd.io/etcd/", "an agent talks to the API only, never to its storage"},
	{"overlay/", "go.etcd.io/etcd/", "a host talks to the API only, never to its storage"},
	{"overlay/", "k8s.io/kubernetes/", "the data plane needs API types and lists, not the API server's machinery"},
	{"api/", "k8s.io/kubernetes/", "clients import api: it has to stay small"},
	{"overlay/", "github.com/moby/buildkit/", "builds are the agent's"},
	{"controller/", "github.com/moby/buildkit/", "builds are the agent's; the controller only passes bytes on"},
	{"", "sigs.k8s.io/controller-runtime/", "one choice for reconcilers: hack/decisions/0002-informers-not-controller-runtime.md"},
	{"controller/", "github.com/vishvananda/netlink/", "a server without an agent touches no network device"},
}

func TestImports(t *testing.T) {
	for _, pkg := range packages(t) {
		for _, path := range pkg.Imports {
			for _, edge := range forbidden {
				if below(pkg.path(), edge.from) && below(ours(path), edge.to) {
					t.Errorf("%s imports %s: %s", pkg.path(), path, edge.reason)
				}
			}
		}
	}
}

// TestFencesBite makes sure that the rules above would notice.
func TestFencesBite(t *testing.T) {
	for _, edge := range forbidden {
		if !below(strings.TrimSuffix(edge.to, "/")+"/x", edge.to) {
			t.Errorf("the fence towards %s matches nothing", edge.to)
		}
	}
	if below("controllers/x", "controller/") {
		t.Error("controller/ matches controllers/")
	}
}

// below tells whether an import path is tree or lies in it. cmd/lighter itself
// is not below cmd/lighter/.
func below(path, tree string) bool {
	if tree == "cmd/lighter/" {
		return strings.HasPrefix(path, tree)
	}
	return tree == "" || strings.HasPrefix(path+"/", tree)
}

// ours shortens our own import paths to the folder.
func ours(path string) string { return strings.TrimPrefix(path, module+"/") }
