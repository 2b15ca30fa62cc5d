package main

import (
	"cmp"
	"hash/fnv"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"lighter.dev/lighter/agent/redial"
	"lighter.dev/lighter/api/client/clientset"
	lighterinformers "lighter.dev/lighter/api/client/informers"
)

// kubernetesService, in namespace default, has the servers as its endpoints.
const kubernetesService = "kubernetes"

// openInformers makes those of the host, which wait for a server when there is none.
func (h *host) openInformers(config *rest.Config, shared *http.Client) error {
	patient := *shared
	patient.Transport = redial.Persist(shared.Transport)
	var err error
	if h.watching, err = kubernetes.NewForConfigAndClient(config, &patient); err != nil {
		return err
	}
	config = rest.CopyConfig(config)
	config.ContentType = "" // our kinds are served as JSON
	own, err := clientset.NewForConfigAndClient(config, &patient)
	if err != nil {
		return err
	}
	h.informers = informers.NewSharedInformerFactory(h.watching, 0)
	h.images = lighterinformers.NewSharedInformerFactory(own, 0)
	return nil
}

// followServers keeps the dialers, and the disk, up to date about which servers
// there are.
func (h *host) followServers() error {
	learn := func(obj any) {
		slice, ok := obj.(*discoveryv1.EndpointSlice)
		if !ok || slice.Namespace != corev1.NamespaceDefault || slice.Labels[discoveryv1.LabelServiceName] != kubernetesService {
			return
		}
		told := serversIn(slice)
		if len(told) == 0 {
			return
		}
		h.servers.Set(serverList(h.cluster, h.options.nodeName, told))
		if err := h.identity.RememberServers(told); err != nil {
			h.log.Warn("the servers' addresses are not kept for the next start", "error", err)
		}
	}
	_, err := h.informers.Discovery().V1().EndpointSlices().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: learn, UpdateFunc: func(_, now any) { learn(now) },
	})
	return err
}

// serversIn are the addresses of an endpoint slice.
func serversIn(slice *discoveryv1.EndpointSlice) []string {
	var servers []string
	for _, endpoint := range slice.Endpoints {
		if endpoint.Conditions.Ready != nil && !*endpoint.Conditions.Ready {
			continue
		}
		for _, address := range endpoint.Addresses {
			for _, port := range slice.Ports {
				if port.Port != nil {
					servers = append(servers, net.JoinHostPort(address, strconv.Itoa(int(*port.Port))))
				}
			}
		}
	}
	return servers
}

// serverList puts servers in the order in which a host asks them: the one in its
// own process first, then those that the cluster told about, each host in another
// order, so that they spread. The one that it was started with comes last unless
// it is among them: it may be a name, a load balancer, or long gone.
func serverList(cluster joinable, node string, told []string) []string {
	list, started := slices.Clone(told), hostPort(cluster.url)
	slices.SortFunc(list, func(a, b string) int {
		return cmp.Or(cmp.Compare(affinity(node, a), affinity(node, b)), cmp.Compare(a, b))
	})
	switch at := slices.Index(list, started); {
	case cluster.newToken != nil && at >= 0: // it is in this process
		return slices.Insert(slices.Delete(list, at, at+1), 0, started)
	case cluster.newToken != nil:
		return slices.Insert(list, 0, started)
	case at >= 0:
		return list
	}
	return append(list, started)
}

func affinity(node, server string) uint32 {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(node + " " + server)) // never fails
	return hash.Sum32()
}

// hostPort is where a URL, which has been checked, leads.
func hostPort(server string) string {
	u, err := url.Parse(server)
	switch {
	case err != nil:
		return server
	case u.Port() == "":
		return net.JoinHostPort(u.Hostname(), "443")
	}
	return u.Host
}
