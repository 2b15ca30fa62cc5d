package dns

import (
	"context"
	"net"
	"strings"

	mdns "github.com/miekg/dns"
)

const (
	// ttl of everything we are the authority for, in seconds: as long as a client may
	// use an endpoint that is gone. The specification's recommendation.
	ttl = 5
	// maxUDP is the largest UDP answer, in bytes: what passes any network without
	// fragments (DNS flag day 2020).
	maxUDP = 1232
)

// ServeDNS answers one query; it implements the handler of github.com/miekg/dns.
func (s *Server) ServeDNS(w mdns.ResponseWriter, request *mdns.Msg) {
	answer := s.answer(request)
	finish(answer, request, isUDP(w))
	if err := w.WriteMsg(answer); err != nil {
		s.cfg.Log.Debug("DNS answer not sent", "to", w.RemoteAddr(), "error", err)
	}
}

func isUDP(w mdns.ResponseWriter) bool {
	_, ok := w.RemoteAddr().(*net.UDPAddr)
	return ok
}

// answer decides who answers: the cluster's zone, its reverse zones, or an upstream.
func (s *Server) answer(request *mdns.Msg) *mdns.Msg {
	reply := new(mdns.Msg).SetReply(request)
	reply.RecursionAvailable = true
	if opt := request.IsEdns0(); opt != nil && opt.Version() != 0 {
		reply.Rcode = mdns.RcodeBadVers
		return reply
	}
	if request.Opcode != mdns.OpcodeQuery {
		reply.Rcode = mdns.RcodeNotImplemented
		return reply
	}
	if len(request.Question) != 1 {
		reply.Rcode = mdns.RcodeFormatError
		return reply
	}
	q := request.Question[0]
	name := strings.ToLower(q.Name)
	switch {
	case q.Qclass != mdns.ClassINET, q.Qtype == mdns.TypeAXFR, q.Qtype == mdns.TypeIXFR:
		reply.Rcode = mdns.RcodeRefused
	case mdns.IsSubDomain(s.zone, name):
		s.fill(reply, q, name, s.lookup(name, q.Qtype, 0))
	default:
		if addr, ok := reverseAddr(name); ok {
			if result := s.reverse(addr, q.Qtype); result.known {
				s.fill(reply, q, name, result)
				break
			}
		}
		return s.forward.answer(request)
	}
	return reply
}

// result is what the cluster knows about a name.
type result struct {
	known   bool // the name exists (or there is nothing else to ask)
	missing bool // it does not exist: NXDOMAIN
	failed  bool // cannot tell now
	records []mdns.RR
	extra   []mdns.RR
}

// nodata is the result for a name that exists without records of the asked type.
var nodata = result{known: true}

// nxdomain is the result for a name that does not exist.
var nxdomain = result{known: true, missing: true}

// fill writes a result of ours into reply.
func (s *Server) fill(reply *mdns.Msg, q mdns.Question, name string, r result) {
	reply.Authoritative = true
	if r.failed {
		reply.Rcode, reply.Authoritative = mdns.RcodeServerFailure, false
		return
	}
	if r.missing {
		reply.Rcode = mdns.RcodeNameError
	}
	if len(r.records) == 0 {
		zone := s.zone
		if !mdns.IsSubDomain(zone, name) {
			zone = reverseZone(name)
		}
		reply.Ns = append(reply.Ns, s.soa(zone))
		return
	}
	for _, rr := range r.records {
		if strings.EqualFold(rr.Header().Name, q.Name) {
			rr.Header().Name = q.Name // some clients insist on the case they asked in (0x20)
		}
	}
	reply.Answer, reply.Extra = r.records, r.extra
}

// soa is the record that says how long a negative answer may be kept (RFC 2308).
func (s *Server) soa(zone string) mdns.RR {
	return &mdns.SOA{
		Hdr: mdns.RR_Header{Name: zone, Rrtype: mdns.TypeSOA, Class: mdns.ClassINET, Ttl: ttl},
		Ns:  "ns.dns." + s.zone, Mbox: "hostmaster." + s.zone,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}
}

// finish makes the answer fit the way it travels and what the client can take.
func finish(answer, request *mdns.Msg, udp bool) {
	size := mdns.MaxMsgSize
	if udp {
		size = mdns.MinMsgSize
	}
	// Only ours goes out: EDNS0 is between neighbours, not end to end.
	for i := len(answer.Extra) - 1; i >= 0; i-- {
		if answer.Extra[i].Header().Rrtype == mdns.TypeOPT {
			answer.Extra = append(answer.Extra[:i:i], answer.Extra[i+1:]...)
		}
	}
	if opt := request.IsEdns0(); opt != nil {
		if udp {
			size = min(max(int(opt.UDPSize()), mdns.MinMsgSize), maxUDP)
		}
		answer.SetEdns0(maxUDP, opt.Do())
	}
	answer.Truncate(size)
}

// resolve asks for a name that one of our records points to. It gives up silently: the
// record itself is answer enough.
func (s *Server) resolve(target string, qtype uint16, depth int) []mdns.RR {
	if mdns.IsSubDomain(s.zone, strings.ToLower(target)) {
		return s.lookup(strings.ToLower(target), qtype, depth+1).records
	}
	query := new(mdns.Msg).SetQuestion(target, qtype)
	reply := s.forward.exchange(context.Background(), query)
	if reply == nil {
		return nil
	}
	return reply.Answer
}
