package dns

import (
	"net/netip"
	"strings"

	mdns "github.com/miekg/dns"
)

// specification is the answer to "dns-version": which one this server implements.
const specification = "1.1.0"

// maxAliases bounds a chain of ExternalName services.
const maxAliases = 8

// lookup answers for a name below the cluster domain; name is lower case and qualified.
func (s *Server) lookup(name string, qtype uint16, depth int) result {
	for _, synced := range s.synced {
		if !synced() {
			return result{known: true, failed: true} // NXDOMAIN would be a lie that clients keep
		}
	}
	if name == s.zone {
		return s.apex(qtype)
	}
	labels := mdns.SplitDomainName(strings.TrimSuffix(name, "."+s.zone))
	last := len(labels) - 1
	switch labels[last] {
	case "svc":
		return s.inServices(name, labels[:last], qtype, depth)
	case "pod":
		return s.inPods(name, labels[:last], qtype)
	case "dns":
		return s.inDNS(name, labels[:last], qtype)
	case "dns-version":
		if last > 0 {
			return nxdomain
		}
		if qtype != mdns.TypeTXT {
			return nodata
		}
		return result{known: true, records: []mdns.RR{&mdns.TXT{Hdr: header(name, mdns.TypeTXT), Txt: []string{specification}}}}
	}
	return nxdomain
}

// apex answers for the cluster domain itself.
func (s *Server) apex(qtype uint16) result {
	switch qtype {
	case mdns.TypeSOA:
		return result{known: true, records: []mdns.RR{s.soa(s.zone)}}
	case mdns.TypeNS:
		return result{known: true, records: []mdns.RR{&mdns.NS{Hdr: header(s.zone, mdns.TypeNS), Ns: "ns.dns." + s.zone}}}
	}
	return nodata
}

// inDNS answers for ns.dns.<domain>, the name of this server.
func (s *Server) inDNS(name string, labels []string, qtype uint16) result {
	switch {
	case len(labels) == 0:
		return nodata
	case len(labels) > 1 || labels[0] != "ns":
		return nxdomain
	}
	r := nodata
	for _, listen := range s.cfg.Listen {
		r.records = appendAddress(r.records, name, qtype, listen.Addr())
	}
	return r
}

// inPods answers for a-b-c-d.<namespace>.pod.<domain>.
func (s *Server) inPods(name string, labels []string, qtype uint16) result {
	if len(labels) == 0 {
		return nodata
	}
	if !s.namespaceExists(labels[len(labels)-1]) || len(labels) > 2 {
		return nxdomain
	}
	if len(labels) == 1 {
		return nodata
	}
	addr, ok := undash(labels[0])
	if !ok {
		return nxdomain
	}
	r := nodata
	r.records = appendAddress(nil, name, qtype, addr)
	return r
}

func (s *Server) namespaceExists(name string) bool {
	_, err := s.cfg.Namespaces.Lister().Get(name)
	return err == nil
}

// undash reads "10-42-0-7" or "fd00--7".
func undash(label string) (netip.Addr, bool) {
	if strings.Count(label, "-") == 3 {
		if addr, err := netip.ParseAddr(strings.ReplaceAll(label, "-", ".")); err == nil {
			return addr, true
		}
	}
	addr, err := netip.ParseAddr(strings.ReplaceAll(label, "-", ":"))
	return addr, err == nil
}

// dash writes an address as a label.
func dash(addr string) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(addr)
}

func header(name string, rrtype uint16) mdns.RR_Header {
	return mdns.RR_Header{Name: name, Rrtype: rrtype, Class: mdns.ClassINET, Ttl: ttl}
}

// appendAddress adds the record of addr if it is of the asked type.
func appendAddress(records []mdns.RR, name string, qtype uint16, addr netip.Addr) []mdns.RR {
	switch {
	case qtype == mdns.TypeA && addr.Is4():
		return append(records, &mdns.A{Hdr: header(name, mdns.TypeA), A: addr.AsSlice()})
	case qtype == mdns.TypeAAAA && addr.Is6():
		return append(records, &mdns.AAAA{Hdr: header(name, mdns.TypeAAAA), AAAA: addr.AsSlice()})
	}
	return records
}
