package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	// perUpstream is how long one resolver may take before the next is asked, and
	// forwardTimeout how long all may take: less than the 5 s after which clients repeat.
	perUpstream    = 2 * time.Second
	forwardTimeout = 4500 * time.Millisecond
	// recheck is how often resolv.conf is looked at for changes, at most.
	recheck = 5 * time.Second
)

// forwarder asks other resolvers.
//
// It is safe against loops (a resolver of ours that forwards to us): our own addresses
// are never asked, and a question that comes back while it is being asked waits for
// its own answer instead of being sent again, so that it ends with the time limit.
type forwarder struct {
	log    *slog.Logger
	own    func(netip.AddrPort) bool
	fixed  bool
	file   string
	cache  *answers
	flight singleflight.Group

	mu       sync.Mutex
	servers  []string // in the order to ask; the last that answered comes first
	checked  time.Time
	modified time.Time
}

func newForwarder(cfg Config, own func(netip.AddrPort) bool) (*forwarder, error) {
	f := &forwarder{log: cfg.Log, own: own, file: cfg.ResolvConf, cache: newAnswers(), fixed: len(cfg.Upstreams) > 0}
	for _, upstream := range cfg.Upstreams {
		if _, err := parseUpstream(upstream, "53"); err != nil {
			return nil, fmt.Errorf("DNS upstream %q: %w", upstream, err)
		}
	}
	f.use(cfg.Upstreams, "53")
	return f, nil
}

func parseUpstream(text, port string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddrPort(text); err == nil {
		return addr, nil
	}
	return netip.ParseAddrPort(net.JoinHostPort(strings.Trim(text, "[]"), port))
}

// use takes these resolvers, except ourselves.
func (f *forwarder) use(upstreams []string, port string) {
	f.servers = nil
	for _, text := range upstreams {
		addr, err := parseUpstream(text, port)
		if err != nil || f.own(addr) {
			continue
		}
		f.servers = append(f.servers, addr.String())
	}
}

// upstreams returns the resolvers to ask, reading the file again if it changed.
func (f *forwarder) upstreams() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fixed || time.Since(f.checked) < recheck {
		return f.servers
	}
	f.checked = time.Now()
	info, err := os.Stat(f.file)
	if err != nil || info.ModTime().Equal(f.modified) {
		return f.servers
	}
	config, err := mdns.ClientConfigFromFile(f.file)
	if err != nil {
		f.log.Error("resolver configuration cannot be read, keeping the old one", "file", f.file, "error", err)
		return f.servers
	}
	f.modified = info.ModTime()
	f.use(config.Servers, config.Port)
	f.log.Info("upstream resolvers", "servers", f.servers, "file", f.file)
	return f.servers
}

// prefer asks server first from now on: one that timed out should not cost every query.
func (f *forwarder) prefer(server string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.servers) == 0 || f.servers[0] == server {
		return
	}
	order := []string{server}
	for _, other := range f.servers {
		if other != server {
			order = append(order, other)
		}
	}
	f.servers = order
}

// answer forwards request and returns the reply for its client.
func (f *forwarder) answer(request *mdns.Msg) *mdns.Msg {
	if !request.RecursionDesired {
		return new(mdns.Msg).SetRcode(request, mdns.RcodeRefused) // we know nothing of our own about it
	}
	reply := f.exchange(context.Background(), request)
	if reply == nil {
		reply = new(mdns.Msg).SetRcode(request, mdns.RcodeServerFailure)
		reply.RecursionAvailable = true
		return reply
	}
	reply.Id = request.Id
	reply.Question = request.Question
	return reply
}

// exchange returns the upstream's answer, from the cache if possible; nil if none answers.
func (f *forwarder) exchange(ctx context.Context, request *mdns.Msg) *mdns.Msg {
	q := request.Question[0]
	opt := request.IsEdns0()
	key := question{name: strings.ToLower(q.Name), qtype: q.Qtype, qclass: q.Qclass, secure: opt != nil && opt.Do()}
	if cached := f.cache.get(key); cached != nil {
		return cached
	}
	// The shared answer is copied for each of those who wait for it.
	value, err, _ := f.flight.Do(fmt.Sprint(key), func() (any, error) {
		reply, err := f.ask(ctx, key)
		if err == nil {
			f.cache.put(key, reply)
		}
		return reply, err
	})
	reply, ok := value.(*mdns.Msg)
	if err != nil || !ok {
		f.log.Debug("no answer from upstream", "name", key.name, "type", mdns.TypeToString[key.qtype], "error", err)
		return nil
	}
	return reply.Copy()
}

// ask tries one resolver after the other.
func (f *forwarder) ask(ctx context.Context, key question) (*mdns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	query := new(mdns.Msg).SetQuestion(key.name, key.qtype)
	query.Question[0].Qclass = key.qclass
	query.SetEdns0(maxUDP, key.secure)
	failed := errors.New("no upstream resolver is known")
	for _, server := range f.upstreams() {
		reply, err := exchangeWith(ctx, server, query)
		switch {
		case err != nil:
			failed = fmt.Errorf("ask %s: %w", server, err)
		case reply.Rcode == mdns.RcodeServerFailure || reply.Rcode == mdns.RcodeRefused:
			failed = fmt.Errorf("ask %s: it says %s", server, mdns.RcodeToString[reply.Rcode])
		default:
			f.prefer(server)
			return reply, nil
		}
	}
	return nil, failed
}

// exchangeWith asks by UDP, and by TCP if the answer did not fit.
func exchangeWith(ctx context.Context, server string, query *mdns.Msg) (*mdns.Msg, error) {
	client := &mdns.Client{Net: "udp", Timeout: perUpstream, UDPSize: maxUDP}
	reply, _, err := client.ExchangeContext(ctx, query, server)
	if err == nil && reply.Truncated {
		client.Net = "tcp"
		reply, _, err = client.ExchangeContext(ctx, query, server)
	}
	return reply, err
}
