package dns

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// Names of the indexes that this package adds to shared informers.
const (
	slicesByService = "dns/service" // namespace/service → slices
	slicesByIP      = "dns/ip"      // endpoint address → slices
	servicesByIP    = "dns/ip"      // cluster address → services
)

// addIndexes adds our indexes, unless a server before us did.
func addIndexes(informer cache.SharedIndexInformer, wanted cache.Indexers) error {
	have := informer.GetIndexer().GetIndexers()
	missing := cache.Indexers{}
	for name, index := range wanted {
		if _, ok := have[name]; !ok {
			missing[name] = index
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := informer.AddIndexers(missing); err != nil {
		return fmt.Errorf("index for DNS: %w", err)
	}
	return nil
}

var serviceIndexes = cache.Indexers{
	servicesByIP: func(obj any) ([]string, error) {
		svc, ok := obj.(*corev1.Service)
		if !ok || svc.Spec.ClusterIP == corev1.ClusterIPNone {
			return nil, nil
		}
		return canonical(clusterIPs(svc)), nil
	},
}

var sliceIndexes = cache.Indexers{
	slicesByService: func(obj any) ([]string, error) {
		slice, ok := obj.(*discoveryv1.EndpointSlice)
		if !ok || slice.Labels[discoveryv1.LabelServiceName] == "" {
			return nil, nil
		}
		return []string{slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName]}, nil
	},
	slicesByIP: func(obj any) ([]string, error) {
		slice, ok := obj.(*discoveryv1.EndpointSlice)
		if !ok || slice.AddressType == discoveryv1.AddressTypeFQDN {
			return nil, nil
		}
		var ips []string
		for i := range slice.Endpoints {
			ips = append(ips, slice.Endpoints[i].Addresses...)
		}
		return canonical(ips), nil
	},
}

func clusterIPs(svc *corev1.Service) []string {
	if len(svc.Spec.ClusterIPs) == 0 && svc.Spec.ClusterIP != "" {
		return []string{svc.Spec.ClusterIP}
	}
	return svc.Spec.ClusterIPs
}

// canonical writes each address in the one form that a look-up uses.
func canonical(ips []string) []string {
	var all []string
	for _, ip := range ips {
		if addr, err := netip.ParseAddr(ip); err == nil {
			all = append(all, addr.String())
		}
	}
	return all
}
