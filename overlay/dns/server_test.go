package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

// patience is how long an answer may take on a busy machine.
const patience = 30 * time.Second

func named(name string, ready bool, ips ...string) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: ips, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
	if name != "" {
		e.Hostname = &name
	}
	return e
}

func service(name, clusterIP string, mutate ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{
		ClusterIP: clusterIP, ClusterIPs: []string{clusterIP},
		Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}, {Protocol: corev1.ProtocolUDP, Port: 53}},
	}}
	for _, m := range mutate {
		m(s)
	}
	return s
}

func alias(target string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: target}
	}
}

func sliceOf(svc string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: svc + "-x", Labels: map[string]string{discoveryv1.LabelServiceName: svc}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpoints,
		Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http"), Protocol: ptr.To(corev1.ProtocolTCP), Port: ptr.To[int32](8080)}},
	}
}

// world is the cluster that most tests ask about.
func world() []runtime.Object {
	many := make([]discoveryv1.Endpoint, 90)
	for i := range many {
		many[i] = named("", true, fmt.Sprintf("10.42.9.%d", i+1))
	}
	return []runtime.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
		service("kubernetes", "10.43.0.1"),
		service("web", "10.43.0.10"), sliceOf("web", named("", true, "10.42.1.5")),
		service("dual", "10.43.0.11", func(s *corev1.Service) { s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, "fd43::11") }),
		service("db", corev1.ClusterIPNone),
		sliceOf("db", named("db-0", true, "10.42.1.7"), named("", true, "10.42.2.7"), named("db-2", false, "10.42.3.7")),
		service("empty", corev1.ClusterIPNone),
		service("big", corev1.ClusterIPNone), sliceOf("big", many...),
		service("out", "", alias("example.com")),
		service("inside", "", alias("web.default.svc.cluster.local")),
		service("loop", "", alias("loop.default.svc.cluster.local")),
	}
}

// start runs a server on a free loopback port and returns its address.
func start(t testing.TB, objects []runtime.Object, change ...func(*Config)) string {
	t.Helper()
	factory := informers.NewSharedInformerFactory(fake.NewClientset(objects...), 0)
	packets, stream := listen(t)
	cfg := Config{
		PacketConns: []net.PacketConn{packets}, Listeners: []net.Listener{stream},
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/15")}, ResolvConf: "/nonexistent",
		Services: factory.Core().V1().Services(), Slices: factory.Discovery().V1().EndpointSlices(), Namespaces: factory.Core().V1().Namespaces(),
		Log: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&cfg)
	}
	server, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		factory.Shutdown()
	})
	<-server.Ready()
	return packets.LocalAddr().String()
}

// listen takes one port of loopback for UDP and TCP. What is free for the one may
// be taken for the other; then it takes the next.
func listen(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		stream, err := net.Listen("tcp", packets.LocalAddr().String())
		if err == nil {
			return packets, stream
		}
		_ = packets.Close()
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// ask sends one question over UDP.
func ask(t testing.TB, server, name string, qtype uint16) *mdns.Msg {
	t.Helper()
	query := new(mdns.Msg).SetQuestion(name, qtype)
	reply, _, err := (&mdns.Client{Timeout: patience}).Exchange(query, server)
	if err != nil {
		t.Fatalf("ask for %s %s: %v", name, mdns.TypeToString[qtype], err)
	}
	return reply
}

// texts are the answers' contents, sorted.
func texts(records []mdns.RR) []string {
	var all []string
	for _, rr := range records {
		all = append(all, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	slices.Sort(all)
	return all
}

func TestSpecification(t *testing.T) {
	server := start(t, world())
	const zone = ".svc.cluster.local. 5 IN "
	for _, c := range []struct {
		name  string
		qtype uint16
		rcode int
		want  []string
	}{
		{"kubernetes.default.svc.cluster.local.", mdns.TypeA, 0, []string{"kubernetes.default" + zone + "A 10.43.0.1"}},
		{"dns-version.cluster.local.", mdns.TypeTXT, 0, []string{`dns-version.cluster.local. 5 IN TXT "1.1.0"`}},
		{"web.default.svc.cluster.local.", mdns.TypeA, 0, []string{"web.default" + zone + "A 10.43.0.10"}},
		{"WEB.Default.svc.cluster.LOCAL.", mdns.TypeA, 0, []string{"WEB.Default.svc.cluster.LOCAL. 5 IN A 10.43.0.10"}},
		{"web.default.svc.cluster.local.", mdns.TypeAAAA, 0, nil},
		{"dual.default.svc.cluster.local.", mdns.TypeAAAA, 0, []string{"dual.default" + zone + "AAAA fd43::11"}},
		{"_http._tcp.web.default.svc.cluster.local.", mdns.TypeSRV, 0, []string{"_http._tcp.web.default" + zone + "SRV 0 100 80 web.default.svc.cluster.local."}},
		{"_http._udp.web.default.svc.cluster.local.", mdns.TypeSRV, mdns.RcodeNameError, nil},
		{"_http._tcp.web.default.svc.cluster.local.", mdns.TypeA, 0, nil},
		{"_tcp.web.default.svc.cluster.local.", mdns.TypeSRV, 0, nil},
		{"nobody.default.svc.cluster.local.", mdns.TypeA, mdns.RcodeNameError, nil},
		{"web.nowhere.svc.cluster.local.", mdns.TypeA, mdns.RcodeNameError, nil},
		{"a.web.default.svc.cluster.local.", mdns.TypeA, mdns.RcodeNameError, nil},
		// Empty non-terminals exist.
		{"cluster.local.", mdns.TypeA, 0, nil},
		{"svc.cluster.local.", mdns.TypeA, 0, nil},
		{"default.svc.cluster.local.", mdns.TypeA, 0, nil},
		{"nowhere.svc.cluster.local.", mdns.TypeA, mdns.RcodeNameError, nil},
		{"example.com.default.svc.cluster.local.", mdns.TypeA, mdns.RcodeNameError, nil},
		// Headless: ready endpoints only, by hostname or dashed address.
		{"db.default.svc.cluster.local.", mdns.TypeA, 0, []string{"db.default" + zone + "A 10.42.1.7", "db.default" + zone + "A 10.42.2.7"}},
		{"db-0.db.default.svc.cluster.local.", mdns.TypeA, 0, []string{"db-0.db.default" + zone + "A 10.42.1.7"}},
		{"10-42-2-7.db.default.svc.cluster.local.", mdns.TypeA, 0, []string{"10-42-2-7.db.default" + zone + "A 10.42.2.7"}},
		{"db-2.db.default.svc.cluster.local.", mdns.TypeA, mdns.RcodeNameError, nil},
		{"db-0.db.default.svc.cluster.local.", mdns.TypeAAAA, 0, nil},
		{"empty.default.svc.cluster.local.", mdns.TypeA, 0, nil},
		{"_http._tcp.db.default.svc.cluster.local.", mdns.TypeSRV, 0, []string{
			"_http._tcp.db.default" + zone + "SRV 0 50 8080 10-42-2-7.db.default.svc.cluster.local.",
			"_http._tcp.db.default" + zone + "SRV 0 50 8080 db-0.db.default.svc.cluster.local."}},
		// ExternalName, also to a name of ours; a loop ends.
		{"inside.default.svc.cluster.local.", mdns.TypeA, 0, []string{
			"inside.default" + zone + "CNAME web.default.svc.cluster.local.", "web.default" + zone + "A 10.43.0.10"}},
		{"out.default.svc.cluster.local.", mdns.TypeCNAME, 0, []string{"out.default" + zone + "CNAME example.com."}},
		// Pods.
		{"10-42-1-5.default.pod.cluster.local.", mdns.TypeA, 0, []string{"10-42-1-5.default.pod.cluster.local. 5 IN A 10.42.1.5"}},
		{"fd42--5.default.pod.cluster.local.", mdns.TypeAAAA, 0, []string{"fd42--5.default.pod.cluster.local. 5 IN AAAA fd42::5"}},
		{"10-42-1-5.nowhere.pod.cluster.local.", mdns.TypeA, mdns.RcodeNameError, nil},
		{"nonsense.default.pod.cluster.local.", mdns.TypeA, mdns.RcodeNameError, nil},
		// Reverse.
		{"10.0.43.10.in-addr.arpa.", mdns.TypePTR, 0, []string{"10.0.43.10.in-addr.arpa. 5 IN PTR web.default.svc.cluster.local."}},
		{"7.1.42.10.in-addr.arpa.", mdns.TypePTR, 0, []string{"7.1.42.10.in-addr.arpa. 5 IN PTR db-0.db.default.svc.cluster.local."}},
		{"1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.4.d.f.ip6.arpa.", mdns.TypePTR, 0,
			[]string{"1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.4.d.f.ip6.arpa. 5 IN PTR dual.default.svc.cluster.local."}},
		{"99.9.42.10.in-addr.arpa.", mdns.TypePTR, mdns.RcodeNameError, nil},
	} {
		reply := ask(t, server, c.name, c.qtype)
		what := c.name + " " + mdns.TypeToString[c.qtype]
		if reply.Rcode != c.rcode || !slices.Equal(texts(reply.Answer), c.want) {
			t.Errorf("%s: %s %v, want %s %v", what, mdns.RcodeToString[reply.Rcode], texts(reply.Answer), mdns.RcodeToString[c.rcode], c.want)
		}
		if !reply.Authoritative {
			t.Errorf("%s: not authoritative", what)
		}
		if len(c.want) == 0 && (len(reply.Ns) != 1 || reply.Ns[0].Header().Rrtype != mdns.TypeSOA) {
			t.Errorf("%s: negative answer without SOA: %v", what, reply.Ns)
		}
	}
	reply := ask(t, server, "loop.default.svc.cluster.local.", mdns.TypeA)
	if len(reply.Answer) == 0 || len(reply.Answer) > maxAliases {
		t.Errorf("alias loop: %v", reply)
	}
}

func TestSizes(t *testing.T) {
	server := start(t, world())
	const name = "big.default.svc.cluster.local."
	plain := ask(t, server, name, mdns.TypeA)
	plain.Compress = true // as it was on the wire
	if !plain.Truncated || plain.Len() > 512 {
		t.Errorf("without EDNS0: %d bytes, truncated %v", plain.Len(), plain.Truncated)
	}
	query := new(mdns.Msg).SetQuestion(name, mdns.TypeA).SetEdns0(4096, false)
	reply, _, err := (&mdns.Client{UDPSize: 4096, Timeout: patience}).Exchange(query, server)
	if err != nil {
		t.Fatal(err)
	}
	reply.Compress = true
	if !reply.Truncated || reply.Len() > maxUDP || len(reply.Answer) <= len(plain.Answer) || reply.IsEdns0() == nil {
		t.Errorf("with EDNS0: %v, %d answers, %d bytes", err, len(reply.Answer), reply.Len())
	}
	query.IsEdns0().SetVersion(1)
	if reply, _, err = (&mdns.Client{Timeout: patience}).Exchange(query, server); err != nil || reply.Rcode != mdns.RcodeBadVers {
		t.Errorf("EDNS version 1: %v %v", reply, err)
	}
	reply, _, err = (&mdns.Client{Net: "tcp", Timeout: patience}).Exchange(new(mdns.Msg).SetQuestion(name, mdns.TypeA), server)
	if err != nil || reply.Truncated || len(reply.Answer) != 90 {
		t.Errorf("TCP: %v, %d answers", err, len(reply.Answer))
	}
}

func TestBeforeTheCachesAreFilledNothingIsDenied(t *testing.T) {
	factory := informers.NewSharedInformerFactory(fake.NewClientset(world()...), 0)
	server, err := New(Config{Services: factory.Core().V1().Services(), Slices: factory.Discovery().V1().EndpointSlices(),
		Namespaces: factory.Core().V1().Namespaces(), ResolvConf: "/nonexistent", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	reply := server.answer(new(mdns.Msg).SetQuestion("web.default.svc.cluster.local.", mdns.TypeA))
	if reply.Rcode != mdns.RcodeServerFailure {
		t.Errorf("answered %s", mdns.RcodeToString[reply.Rcode])
	}
}

// upstream is a resolver that answers everything with one address and counts.
func upstream(t *testing.T, handle mdns.HandlerFunc) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &mdns.Server{PacketConn: conn, Handler: handle}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() { _ = server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = server.Shutdown() })
	return conn.LocalAddr().String()
}

func answerWith(count *atomic.Int32, rcode int) mdns.HandlerFunc {
	return func(w mdns.ResponseWriter, r *mdns.Msg) {
		count.Add(1)
		reply := new(mdns.Msg).SetRcode(r, rcode)
		if rcode == mdns.RcodeSuccess {
			rr, _ := mdns.NewRR(r.Question[0].Name + " 60 IN A 192.0.2.80")
			reply.Answer = append(reply.Answer, rr)
		}
		_ = w.WriteMsg(reply)
	}
}

func TestForwarding(t *testing.T) {
	var bad, good atomic.Int32
	first, second := upstream(t, answerWith(&bad, mdns.RcodeServerFailure)), upstream(t, answerWith(&good, mdns.RcodeSuccess))
	server := start(t, world(), func(c *Config) { c.Upstreams = []string{first, second} })
	for range 3 {
		reply := ask(t, server, "Example.com.", mdns.TypeA)
		if got := texts(reply.Answer); len(got) != 1 || !strings.HasSuffix(got[0], "A 192.0.2.80") || reply.Authoritative {
			t.Fatalf("answer %v", reply)
		}
	}
	if bad.Load() != 1 || good.Load() != 1 {
		t.Errorf("the resolvers were asked %d and %d times, want once each and then the cache", bad.Load(), good.Load())
	}
	if reply := ask(t, server, "out.default.svc.cluster.local.", mdns.TypeA); len(reply.Answer) != 2 {
		t.Errorf("alias to the outside: %v", reply.Answer)
	}
	if reply := ask(t, server, "other.example.", mdns.TypeA); len(reply.Answer) != 1 || bad.Load() != 1 {
		t.Errorf("the resolver that failed is asked first again (%d times)", bad.Load())
	}
	if reply := ask(t, server, "5.2.0.192.in-addr.arpa.", mdns.TypePTR); reply.Rcode != 0 || len(reply.Ns) != 0 {
		t.Errorf("a foreign address is not forwarded: %v", reply)
	}
}

func TestForwardingLoopEnds(t *testing.T) {
	var address atomic.Value
	hops := new(atomic.Int32)
	// A resolver that sends every question back to the server that asked it.
	back := upstream(t, func(w mdns.ResponseWriter, r *mdns.Msg) {
		hops.Add(1)
		query := new(mdns.Msg).SetQuestion(r.Question[0].Name, r.Question[0].Qtype)
		to, _ := address.Load().(string)
		if reply, _, err := (&mdns.Client{Timeout: 6 * time.Second}).Exchange(query, to); err == nil {
			reply.Id = r.Id
			_ = w.WriteMsg(reply)
		}
	})
	server := start(t, world(), func(c *Config) { c.Upstreams = []string{back} })
	address.Store(server)
	if reply := ask(t, server, "example.com.", mdns.TypeA); reply.Rcode != mdns.RcodeServerFailure {
		t.Errorf("answer %v", reply)
	}
	if hops.Load() > 2 {
		t.Errorf("the question went around %d times", hops.Load())
	}
}

func TestNoUpstreamIsServfail(t *testing.T) {
	server := start(t, world(), func(c *Config) { c.Upstreams = nil })
	if reply := ask(t, server, "example.com.", mdns.TypeA); reply.Rcode != mdns.RcodeServerFailure {
		t.Errorf("answer %v", reply)
	}
}

func TestCacheCountsDownAndIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	cache := newAnswers()
	cache.now = func() time.Time { return now }
	msg := new(mdns.Msg).SetQuestion("a.", mdns.TypeA)
	rr, err := mdns.NewRR("a. 60 IN A 192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	msg.Answer = []mdns.RR{rr}
	key := question{name: "a.", qtype: mdns.TypeA, qclass: mdns.ClassINET}
	cache.put(key, msg)
	now = now.Add(20 * time.Second)
	if got := cache.get(key); got == nil || got.Answer[0].Header().Ttl != 40 {
		t.Errorf("after 20 s: %v", got)
	}
	now = now.Add(40 * time.Second)
	if got := cache.get(key); got != nil {
		t.Errorf("after its time: %v", got)
	}
	for i := range cacheEntries + 10 {
		cache.put(question{name: fmt.Sprint(i)}, msg)
	}
	if len(cache.byKey) != cacheEntries || cache.order.Len() != cacheEntries {
		t.Errorf("%d entries", len(cache.byKey))
	}
	negative := new(mdns.Msg).SetRcode(msg, mdns.RcodeNameError)
	if keepFor(negative) != 0 {
		t.Error("a negative answer without SOA is kept")
	}
}

func TestDig(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("needs the program dig (package dnsutils)")
	}
	server := start(t, world())
	host, port, _ := net.SplitHostPort(server)
	run := func(args ...string) string {
		out, err := exec.Command(dig, append([]string{"@" + host, "-p", port, "+time=30", "+tries=1"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("dig %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if got := run("+short", "web.default.svc.cluster.local"); strings.TrimSpace(got) != "10.43.0.10" {
		t.Errorf("A: %q", got)
	}
	if got := run("+short", "-x", "10.43.0.1"); strings.TrimSpace(got) != "kubernetes.default.svc.cluster.local." {
		t.Errorf("PTR: %q", got)
	}
	if got := run("nobody.default.svc.cluster.local"); !strings.Contains(got, "NXDOMAIN") || !strings.Contains(got, "SOA") {
		t.Errorf("negative answer:\n%s", got)
	}
	if got := run("big.default.svc.cluster.local"); !strings.Contains(got, "ANSWER: 90") {
		t.Errorf("90 endpoints by TCP after truncation:\n%s", got)
	}
}

func BenchmarkClusterIP(b *testing.B) {
	factory := informers.NewSharedInformerFactory(fake.NewClientset(world()...), 0)
	server, err := New(Config{Services: factory.Core().V1().Services(), Slices: factory.Discovery().V1().EndpointSlices(),
		Namespaces: factory.Core().V1().Namespaces(), ResolvConf: "/nonexistent", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	factory.Start(b.Context().Done())
	factory.WaitForCacheSync(b.Context().Done())
	query := new(mdns.Msg).SetQuestion("web.default.svc.cluster.local.", mdns.TypeA)
	b.ReportAllocs()
	for b.Loop() {
		if reply := server.answer(query); len(reply.Answer) != 1 {
			b.Fatal(reply)
		}
	}
}

func BenchmarkOverUDP(b *testing.B) {
	server := start(b, world())
	conn, err := mdns.Dial("udp", server)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	query := new(mdns.Msg).SetQuestion("web.default.svc.cluster.local.", mdns.TypeA)
	for b.Loop() {
		if err := conn.WriteMsg(query); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.ReadMsg(); err != nil {
			b.Fatal(err)
		}
	}
}
