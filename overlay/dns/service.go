package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// inServices answers for names below svc.<domain>; labels are what stands before "svc":
//
//	<namespace>
//	<service>.<namespace>
//	<endpoint>.<service>.<namespace>       or  _<protocol>.<service>.<namespace>
//	_<port>._<protocol>.<service>.<namespace>
func (s *Server) inServices(name string, labels []string, qtype uint16, depth int) result {
	n := len(labels)
	if n == 0 {
		return nodata
	}
	if n == 1 {
		if s.namespaceExists(labels[0]) {
			return nodata
		}
		return nxdomain
	}
	if n > 4 {
		return nxdomain
	}
	svc, err := s.cfg.Services.Lister().Services(labels[n-1]).Get(labels[n-2])
	if err != nil {
		return nxdomain
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		if n > 2 {
			return nxdomain
		}
		return s.alias(name, svc, qtype, depth)
	}
	v := &serviceView{s: s, svc: svc, base: svc.Name + "." + svc.Namespace + ".svc." + s.zone}
	switch {
	case n == 2:
		return v.service(name, qtype)
	case n == 3 && strings.HasPrefix(labels[0], "_"):
		return v.protocol(labels[0])
	case n == 3:
		return v.endpoint(name, labels[0], qtype)
	}
	return v.port(name, labels[0], labels[1], qtype)
}

// alias answers for an ExternalName service: a CNAME, and what it points to.
func (s *Server) alias(name string, svc *corev1.Service, qtype uint16, depth int) result {
	if _, ok := mdns.IsDomainName(svc.Spec.ExternalName); !ok || depth >= maxAliases {
		return result{known: true, failed: true}
	}
	target := mdns.Fqdn(svc.Spec.ExternalName)
	r := result{known: true, records: []mdns.RR{&mdns.CNAME{Hdr: header(name, mdns.TypeCNAME), Target: target}}}
	if qtype != mdns.TypeCNAME {
		r.records = append(r.records, s.resolve(target, qtype, depth)...)
	}
	return r
}

// serviceView answers for one service.
type serviceView struct {
	s    *Server
	svc  *corev1.Service
	base string // the service's own name
}

func (v *serviceView) headless() bool { return v.svc.Spec.ClusterIP == corev1.ClusterIPNone }

// target is one address behind a headless service.
type target struct {
	addr netip.Addr
	host string // its label below the service's name
	port int32
}

// targets lists the ready endpoints of a headless service. With a port name (and
// protocol) only slices that have this port count, and port is filled in.
func (v *serviceView) targets(port string, protocol corev1.Protocol) []target {
	objects, err := v.s.cfg.Slices.Informer().GetIndexer().ByIndex(slicesByService, v.svc.Namespace+"/"+v.svc.Name)
	if err != nil {
		return nil
	}
	var all []target
	for _, obj := range objects {
		slice, ok := obj.(*discoveryv1.EndpointSlice)
		if !ok || slice.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		number := int32(0)
		if protocol != "" {
			if number, ok = portNumber(slice, port, protocol); !ok {
				continue
			}
		}
		for i := range slice.Endpoints {
			ep := &slice.Endpoints[i]
			// The slice says ready as well where publishNotReadyAddresses asks for it.
			if ready := ep.Conditions.Ready; ready != nil && !*ready {
				continue
			}
			for _, ip := range ep.Addresses {
				if addr, err := netip.ParseAddr(ip); err == nil {
					all = append(all, target{addr: addr, host: hostLabel(ep, ip), port: number})
				}
			}
		}
	}
	return unique(all)
}

// unique drops endpoints that are in two slices while they move, and shuffles: many
// clients take the first address only.
func unique(all []target) []target {
	seen := make(map[target]struct{}, len(all))
	all = slices.DeleteFunc(all, func(t target) bool {
		_, dup := seen[t]
		seen[t] = struct{}{}
		return dup
	})
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func hostLabel(ep *discoveryv1.Endpoint, ip string) string {
	if ep.Hostname != nil && *ep.Hostname != "" {
		return strings.ToLower(*ep.Hostname)
	}
	return dash(ip)
}

func portNumber(slice *discoveryv1.EndpointSlice, name string, protocol corev1.Protocol) (int32, bool) {
	for i := range slice.Ports {
		p := &slice.Ports[i]
		if p.Name != nil && *p.Name == name && p.Protocol != nil && *p.Protocol == protocol && p.Port != nil {
			return *p.Port, true
		}
	}
	return 0, false
}

// service answers for the service's own name.
func (v *serviceView) service(name string, qtype uint16) result {
	r := nodata
	switch {
	case qtype == mdns.TypeSRV:
		for i := range v.svc.Spec.Ports {
			if port := &v.svc.Spec.Ports[i]; port.Name != "" {
				v.appendSRV(&r, name, port)
			}
		}
	case v.headless():
		for _, t := range v.targets("", "") {
			r.records = appendAddress(r.records, name, qtype, t.addr)
		}
	default:
		for _, ip := range clusterIPs(v.svc) {
			if addr, err := netip.ParseAddr(ip); err == nil {
				r.records = appendAddress(r.records, name, qtype, addr)
			}
		}
	}
	return r
}

// endpoint answers for <hostname>.<service>, which exists for headless services.
func (v *serviceView) endpoint(name, host string, qtype uint16) result {
	if !v.headless() {
		return nxdomain
	}
	r := nxdomain
	for _, t := range v.targets("", "") {
		if t.host == host {
			r.missing = false
			r.records = appendAddress(r.records, name, qtype, t.addr)
		}
	}
	return r
}

// protocol answers for _tcp.<service>: it has no records but names below it.
func (v *serviceView) protocol(label string) result {
	for i := range v.svc.Spec.Ports {
		if protocolLabel(&v.svc.Spec.Ports[i]) == label {
			return nodata
		}
	}
	return nxdomain
}

// port answers for _<port>._<protocol>.<service>.
func (v *serviceView) port(name, portLabel, protocol string, qtype uint16) result {
	for i := range v.svc.Spec.Ports {
		port := &v.svc.Spec.Ports[i]
		if port.Name == "" || "_"+port.Name != portLabel || protocolLabel(port) != protocol {
			continue
		}
		r := nodata
		if qtype == mdns.TypeSRV {
			v.appendSRV(&r, name, port)
		}
		return r
	}
	return nxdomain
}

func protocolLabel(port *corev1.ServicePort) string {
	if port.Protocol == "" {
		return "_tcp"
	}
	return "_" + strings.ToLower(string(port.Protocol))
}

// appendSRV adds the SRV records (RFC 2782) of one port, with the addresses they point to.
func (v *serviceView) appendSRV(r *result, name string, port *corev1.ServicePort) {
	add := func(target string, number int32, weight int) {
		r.records = append(r.records, &mdns.SRV{Hdr: header(name, mdns.TypeSRV), Weight: uint16(weight), Port: uint16(number), Target: target})
	}
	address := func(target string, addr netip.Addr) {
		r.extra = appendAddress(r.extra, target, mdns.TypeA, addr)
		r.extra = appendAddress(r.extra, target, mdns.TypeAAAA, addr)
	}
	if !v.headless() {
		add(v.base, port.Port, 100)
		for _, ip := range clusterIPs(v.svc) {
			if addr, err := netip.ParseAddr(ip); err == nil {
				address(v.base, addr)
			}
		}
		return
	}
	protocol := port.Protocol
	if protocol == "" {
		protocol = corev1.ProtocolTCP
	}
	all := v.targets(port.Name, protocol)
	for _, t := range all {
		add(t.host+"."+v.base, t.port, max(1, 100/len(all)))
		address(t.host+"."+v.base, t.addr)
	}
}
