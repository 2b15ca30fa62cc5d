package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/continuity"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// RefreshKubeconfig makes the kubeconfig name a server that answers: the one that
// it names, or else the first that does.
func (c *Cluster) RefreshKubeconfig(ctx context.Context) error {
	servers := c.Servers()
	if config, _, err := c.client(); err == nil {
		if at := slices.IndexFunc(servers, func(h Host) bool { return h.url() == config.Host }); at > 0 {
			servers[0], servers[at] = servers[at], servers[0]
		}
	}
	var errs []error
	for _, server := range servers {
		config, err := clientcmd.LoadFromFile(filepath.Join(c.serverData(server.Name), "admin.kubeconfig"))
		if err == nil {
			for _, cluster := range config.Clusters {
				cluster.Server = server.url()
			}
			err = apiReady(ctx, config)
		}
		if err == nil {
			return c.writeKubeconfig(config)
		}
		errs = append(errs, fmt.Errorf("%s: %w", server.Name, err))
	}
	return errors.Join(errs...)
}

// url is how the API of a server is reached from the machine.
func (h Host) url() string { return fmt.Sprintf("https://%s:6443", h.IP) }

func (c *Cluster) writeKubeconfig(config *clientcmdapi.Config) error {
	content, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(c.Kubeconfig()); err == nil && string(have) == string(content) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return continuity.AtomicWriteFile(c.Kubeconfig(), content, 0o600)
}

func (c *Cluster) client() (*rest.Config, kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	return config, client, err
}

// knock is how long a server may take to say that it is ready.
const knock = time.Second

func apiReady(ctx context.Context, admin *clientcmdapi.Config) error {
	ctx, cancel := context.WithTimeout(ctx, knock)
	defer cancel()
	config, err := clientcmd.NewDefaultClientConfig(*admin, nil).ClientConfig()
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s says %s", request.URL, response.Status)
	}
	return nil
}
