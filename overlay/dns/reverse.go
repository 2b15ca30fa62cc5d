package dns

import (
	"net/netip"
	"strings"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

const (
	reverseV4 = "in-addr.arpa."
	reverseV6 = "ip6.arpa."
)

func reverseZone(name string) string {
	if strings.HasSuffix(name, "."+reverseV6) {
		return reverseV6
	}
	return reverseV4
}

// reverseAddr reads the address out of a name like 7.0.42.10.in-addr.arpa.
func reverseAddr(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, "."+reverseV4); ok {
		part := strings.Split(rest, ".")
		if len(part) != 4 {
			return netip.Addr{}, false
		}
		addr, err := netip.ParseAddr(part[3] + "." + part[2] + "." + part[1] + "." + part[0])
		return addr, err == nil
	}
	rest, ok := strings.CutSuffix(name, "."+reverseV6)
	if !ok || len(rest) != 63 { // 32 nibbles and the dots between them
		return netip.Addr{}, false
	}
	var text strings.Builder
	for i := 31; i >= 0; i-- {
		text.WriteByte(rest[2*i])
		if i%4 == 0 && i > 0 {
			text.WriteByte(':')
		}
	}
	addr, err := netip.ParseAddr(text.String())
	return addr, err == nil
}

// reverse answers for the address of a service or an endpoint. An address that is
// neither, and not in the cluster's networks, is somebody else's: not known.
func (s *Server) reverse(addr netip.Addr, qtype uint16) result {
	names := append(s.servicesAt(addr), s.endpointsAt(addr)...)
	if len(names) == 0 {
		for _, cidr := range s.cfg.ClusterCIDRs {
			if cidr.Contains(addr) {
				return nxdomain
			}
		}
		return result{}
	}
	r := nodata
	if qtype == mdns.TypePTR {
		name, err := mdns.ReverseAddr(addr.String())
		if err != nil {
			return result{known: true, failed: true}
		}
		for _, target := range names {
			r.records = append(r.records, &mdns.PTR{Hdr: header(name, mdns.TypePTR), Ptr: target})
		}
	}
	return r
}

func (s *Server) servicesAt(addr netip.Addr) []string {
	objects, err := s.cfg.Services.Informer().GetIndexer().ByIndex(servicesByIP, addr.String())
	if err != nil {
		return nil
	}
	var names []string
	for _, obj := range objects {
		if svc, ok := obj.(*corev1.Service); ok {
			names = append(names, svc.Name+"."+svc.Namespace+".svc."+s.zone)
		}
	}
	return names
}

// endpointsAt names the endpoints of headless services that have this address.
func (s *Server) endpointsAt(addr netip.Addr) []string {
	objects, err := s.cfg.Slices.Informer().GetIndexer().ByIndex(slicesByIP, addr.String())
	if err != nil {
		return nil
	}
	var names []string
	for _, obj := range objects {
		slice, ok := obj.(*discoveryv1.EndpointSlice)
		if !ok {
			continue
		}
		svc, err := s.cfg.Services.Lister().Services(slice.Namespace).Get(slice.Labels[discoveryv1.LabelServiceName])
		if err != nil || svc.Spec.ClusterIP != corev1.ClusterIPNone {
			continue
		}
		for i := range slice.Endpoints {
			for _, ip := range slice.Endpoints[i].Addresses {
				if parsed, err := netip.ParseAddr(ip); err == nil && parsed == addr {
					names = append(names, hostLabel(&slice.Endpoints[i], ip)+"."+svc.Name+"."+svc.Namespace+".svc."+s.zone)
				}
			}
		}
	}
	return names
}
