package pki

import (
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// WriteKubeconfig writes the admin's kubeconfig for server (an https URL),
// readable by its owner only.
func (a *Authority) WriteKubeconfig(path, server string) error {
	crtFile, keyFile := a.pair("admin")
	crt, err := os.ReadFile(crtFile)
	if err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	const name = "lighter"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: a.PEM}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: crt, ClientKeyData: key}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	text, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	return writeFile(path, text)
}
