package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

const serviceIP = "10.43.0.10"

// rig is a lab with a proxy that runs on its host, fed from a fake API.
type rig struct {
	*lab
	api  *fake.Clientset
	stop func()
}

// newRig starts a proxy with these services and slices.
func newRig(l *lab, services []*corev1.Service, slices []*discoveryv1.EndpointSlice) *rig {
	l.t.Helper()
	r := &rig{lab: l, api: fake.NewClientset()}
	for _, s := range services {
		r.put(s, nil)
	}
	for _, s := range slices {
		r.put(nil, s)
	}
	r.run()
	return r
}

// run starts a proxy on the host and waits until its table is in place.
func (r *rig) run() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	factory := informers.NewSharedInformerFactory(r.api, 0)
	var proxy *Proxy
	ready := make(chan error, 1)
	done := r.host.start(func() error {
		var err error
		proxy, err = New(Config{NodeName: thisNode, PodCIDRs: podNet,
			ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}, Device: "br", Log: slog.New(slog.NewTextHandler(r.t.Output(), nil)),
			Services: factory.Core().V1().Services(), Slices: factory.Discovery().V1().EndpointSlices()})
		ready <- err
		if err != nil {
			return err
		}
		factory.Start(ctx.Done())
		return proxy.Run(ctx)
	})
	if err := <-ready; err != nil {
		r.t.Fatal(err)
	}
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
		factory.Shutdown()
		r.stop = func() {}
	}
	r.t.Cleanup(func() { r.stop() })
	select {
	case <-proxy.Synced():
	case <-time.After(patience):
		r.t.Fatal("the proxy does not get in step")
	}
}

// put creates or updates a service or slice in the API.
func (r *rig) put(s *corev1.Service, e *discoveryv1.EndpointSlice) {
	r.t.Helper()
	ctx := context.Background()
	var err error
	if s != nil {
		if _, err = r.api.CoreV1().Services(s.Namespace).Update(ctx, s, metav1.UpdateOptions{}); err != nil {
			_, err = r.api.CoreV1().Services(s.Namespace).Create(ctx, s, metav1.CreateOptions{})
		}
	}
	if e != nil {
		if _, err = r.api.DiscoveryV1().EndpointSlices(e.Namespace).Update(ctx, e, metav1.UpdateOptions{}); err != nil {
			_, err = r.api.DiscoveryV1().EndpointSlices(e.Namespace).Create(ctx, e, metav1.CreateOptions{})
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// eventually waits until check says yes.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if check() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

// nft runs nft on the host.
func (r *rig) nft(args ...string) string {
	r.t.Helper()
	var out []byte
	r.host.do(func() error {
		var err error
		out, err = exec.Command("nft", args...).CombinedOutput()
		if err != nil {
			return errors.New("nft " + strings.Join(args, " ") + ": " + string(out))
		}
		return nil
	})
	return string(out)
}

func nodePort(s *corev1.Service) {
	s.Spec.Type = corev1.ServiceTypeNodePort
	s.Spec.Ports[0].NodePort = 30080
}

func TestClusterIPBalancesOverEndpoints(t *testing.T) {
	pods := []string{"10.42.1.11", "10.42.1.12", "10.42.1.13"}
	l := newLab(t, append(pods, "10.42.1.20")...)
	var eps []discoveryv1.Endpoint
	for _, pod := range pods {
		l.serve(pod, 8080)
		eps = append(eps, ep(pod, thisNode))
	}
	newRig(l, []*corev1.Service{svc("web", serviceIP)}, []*discoveryv1.EndpointSlice{slice("web", eps...)})
	seen := map[string]int{}
	for range 60 {
		pod, client := l.pods["10.42.1.20"].mustGet(addrPort(serviceIP, 80))
		if client != "10.42.1.20" {
			t.Fatalf("the endpoint sees %s, not the pod's own address", client)
		}
		seen[pod]++
	}
	t.Log("answers by endpoint:", seen)
	for _, pod := range pods {
		if seen[pod] < 5 { // probability of a false alarm about 3e-6
			t.Errorf("%s got %d of 60 connections", pod, seen[pod])
		}
	}
	if _, client := l.host.mustGet(addrPort(serviceIP, 80)); client != hostBridge {
		t.Errorf("a connection of the host comes from %s, not from the bridge", client)
	}
}

func TestHairpinPodReachesItselfThroughItsService(t *testing.T) {
	l := newLab(t, "10.42.1.11")
	l.serve("10.42.1.11", 8080)
	newRig(l, []*corev1.Service{svc("web", serviceIP)}, []*discoveryv1.EndpointSlice{slice("web", ep("10.42.1.11", thisNode))})
	pod, client := l.pods["10.42.1.11"].mustGet(addrPort(serviceIP, 80))
	if pod != "10.42.1.11" || client != hostBridge {
		t.Errorf("answered by %s, seen from %s; want itself, from the bridge", pod, client)
	}
}

func TestClientIPAffinityHoldsAndExpires(t *testing.T) {
	pods := []string{"10.42.1.11", "10.42.1.12", "10.42.1.13", "10.42.1.14"}
	l := newLab(t, append(pods, "10.42.1.20")...)
	var eps []discoveryv1.Endpoint
	for _, pod := range pods {
		l.serve(pod, 8080)
		eps = append(eps, ep(pod, thisNode))
	}
	sticky := func(seconds int32) *corev1.Service {
		return svc("web", serviceIP, nodePort, func(s *corev1.Service) {
			s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
		})
	}
	r := newRig(l, []*corev1.Service{sticky(3600)}, []*discoveryv1.EndpointSlice{slice("web", eps...)})
	client := l.pods["10.42.1.20"]
	first, _ := client.mustGet(addrPort(serviceIP, 80))
	for range 15 {
		if pod, _ := client.mustGet(addrPort(serviceIP, 80)); pod != first {
			t.Fatalf("client moved from %s to %s", first, pod)
		}
	}
	// Another endpoint goes: the client stays. Its own goes: it moves, and stays there.
	r.stop()
	r.run()
	if pod, _ := client.mustGet(addrPort(serviceIP, 80)); pod != first {
		t.Errorf("a restart of the proxy moved the client from %s to %s", first, pod)
	}
	var left []discoveryv1.Endpoint
	for _, e := range eps {
		if e.Addresses[0] != first {
			left = append(left, e)
		}
	}
	r.put(nil, slice("web", left...))
	eventually(t, "the endpoint is taken out", func() bool { return !strings.Contains(r.nft("list", "table", "ip", TableName), first+":8080") })
	second, _ := client.mustGet(addrPort(serviceIP, 80))
	if second == first {
		t.Error("client still goes to the endpoint that was taken out")
	}
	// Another timeout is another set of clients.
	known := func() bool { return strings.Contains(r.nft("list", "table", "ip", TableName), "10.42.1.20") }
	r.put(sticky(3), nil)
	eventually(t, "affinity of the former timeout is forgotten", func() bool { return !known() })
	eventually(t, "the client is remembered", func() bool { client.mustGet(addrPort(serviceIP, 80)); return known() })
	eventually(t, "affinity expires", func() bool { return !known() })
}

func TestNodePort(t *testing.T) {
	l := newLab(t, "10.42.1.11")
	l.serve("10.42.1.11", 8080)
	newRig(l, []*corev1.Service{svc("web", serviceIP, nodePort)}, []*discoveryv1.EndpointSlice{slice("web", ep("10.42.1.11", thisNode))})
	if pod, client := l.outside.mustGet(addrPort(hostOutside, 30080)); pod != "10.42.1.11" || client != hostBridge {
		t.Errorf("from outside: answered by %s, seen from %s; want masquerading as the bridge", pod, client)
	}
	l.host.mustGet(addrPort(hostOutside, 30080))
	l.pods["10.42.1.11"].mustGet(addrPort(hostOutside, 30080))
}

func TestExternalIPs(t *testing.T) {
	l := newLab(t, "10.42.1.11")
	l.serve("10.42.1.11", 8080)
	newRig(l, []*corev1.Service{svc("web", serviceIP, func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"198.51.100.7"} })},
		[]*discoveryv1.EndpointSlice{slice("web", ep("10.42.1.11", thisNode))})
	l.outside.mustGet(addrPort("198.51.100.7", 80))
}

func TestServiceWithoutEndpointsIsRefusedAtOnce(t *testing.T) {
	l := newLab(t, "10.42.1.20")
	newRig(l, []*corev1.Service{svc("web", serviceIP, nodePort)}, []*discoveryv1.EndpointSlice{slice("web", epNotReady("10.42.1.11", thisNode))})
	for name, try := range map[string]func() error{
		"pod":           func() error { _, err := l.pods["10.42.1.20"].dial(addrPort(serviceIP, 80), patience); return err },
		"host":          func() error { _, err := l.host.dial(addrPort(serviceIP, 80), patience); return err },
		"unknown port":  func() error { _, err := l.pods["10.42.1.20"].dial(addrPort(serviceIP, 81), patience); return err },
		"outside":       func() error { _, err := l.outside.dial(addrPort(hostOutside, 30080), patience); return err },
		"host nodeport": func() error { _, err := l.host.dial(addrPort(hostOutside, 30080), patience); return err },
	} {
		// Where packets are dropped instead, no answer comes at all.
		if err := try(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v, want connection refused at once", name, err)
		}
	}
}

func TestExternalTrafficPolicyLocal(t *testing.T) {
	l := newLab(t, "10.42.1.11", "10.42.1.12", "10.42.1.20")
	l.serve("10.42.1.11", 8080)
	l.serve("10.42.1.12", 8080)
	local := svc("web", serviceIP, nodePort, func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal })
	r := newRig(l, []*corev1.Service{local}, []*discoveryv1.EndpointSlice{slice("web", ep("10.42.1.11", thisNode), ep("10.42.1.12", "host-2"))})
	for range 12 {
		if pod, client := l.outside.mustGet(addrPort(hostOutside, 30080)); pod != "10.42.1.11" || client != outsider {
			t.Fatalf("answered by %s, seen from %s; want the local endpoint and the client's own address", pod, client)
		}
	}
	// Only remote ones left: nothing for the outside, all for the inside.
	r.put(nil, slice("web", ep("10.42.1.12", "host-2")))
	eventually(t, "the outside is cut off", func() bool { _, _, err := l.outside.get(addrPort(hostOutside, 30080)); return err != nil })
	if pod, _ := l.pods["10.42.1.20"].mustGet(addrPort(hostOutside, 30080)); pod != "10.42.1.12" {
		t.Errorf("a pod was sent to %s", pod)
	}
	l.host.mustGet(addrPort(hostOutside, 30080))
}

func TestInternalTrafficPolicyLocal(t *testing.T) {
	l := newLab(t, "10.42.1.11", "10.42.1.12", "10.42.1.20")
	l.serve("10.42.1.11", 8080)
	l.serve("10.42.1.12", 8080)
	local := svc("web", serviceIP, func(s *corev1.Service) {
		s.Spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyLocal)
	})
	newRig(l, []*corev1.Service{local}, []*discoveryv1.EndpointSlice{slice("web", ep("10.42.1.11", thisNode), ep("10.42.1.12", "host-2"))})
	for range 12 {
		if pod, _ := l.pods["10.42.1.20"].mustGet(addrPort(serviceIP, 80)); pod != "10.42.1.11" {
			t.Fatalf("answered by %s, not the local endpoint", pod)
		}
	}
}

func TestUpdatesKeepConnectionsAndRestartKeepsRules(t *testing.T) {
	l := newLab(t, "10.42.1.11", "10.42.1.12", "10.42.1.20")
	l.serve("10.42.1.11", 8080)
	l.serve("10.42.1.12", 8080)
	client := l.pods["10.42.1.20"]
	r := newRig(l, []*corev1.Service{svc("web", serviceIP)}, []*discoveryv1.EndpointSlice{slice("web", ep("10.42.1.11", thisNode))})
	open, err := client.dial(addrPort(serviceIP, 80), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer open.conn.Close()
	alive := func(when string) {
		t.Helper()
		if pod, _, err := open.ask(); err != nil || pod != "10.42.1.11" {
			t.Fatalf("%s: the open connection is answered by %q, %v", when, pod, err)
		}
	}
	alive("at first")
	r.put(nil, slice("web", epTerminating("10.42.1.11", thisNode), ep("10.42.1.12", thisNode)))
	eventually(t, "new connections go to the new endpoint", func() bool { pod, _ := client.mustGet(addrPort(serviceIP, 80)); return pod == "10.42.1.12" })
	alive("after its endpoint began to terminate")

	r.stop()
	alive("without a proxy")
	client.mustGet(addrPort(serviceIP, 80))
	r.put(svc("other", "10.43.0.11"), slice("other", ep("10.42.1.12", thisNode)))
	r.run()
	alive("after the restart")
	client.mustGet(addrPort(serviceIP, 80))
	client.mustGet(addrPort("10.43.0.11", 80))
}

func TestOnlyTerminatingEndpointsStillServe(t *testing.T) {
	l := newLab(t, "10.42.1.11", "10.42.1.20")
	l.serve("10.42.1.11", 8080)
	newRig(l, []*corev1.Service{svc("web", serviceIP)}, []*discoveryv1.EndpointSlice{slice("web", epTerminating("10.42.1.11", thisNode))})
	l.pods["10.42.1.20"].mustGet(addrPort(serviceIP, 80))
}

func TestTamperingIsRepaired(t *testing.T) {
	l := newLab(t, "10.42.1.11", "10.42.1.20")
	l.serve("10.42.1.11", 8080)
	r := newRig(l, []*corev1.Service{svc("web", serviceIP)}, []*discoveryv1.EndpointSlice{slice("web", ep("10.42.1.11", thisNode))})
	want := r.nft("list", "table", "ip", TableName)
	for _, harm := range [][]string{
		{"delete", "table", "ip", TableName},
		{"flush", "ruleset"},
		{"flush", "map", "ip", TableName, mapServices},
		{"flush", "chain", "ip", TableName, chainServices},
		{"add", "rule", "ip", TableName, chainServices, "drop"},
		{"add", "chain", "ip", TableName, "intruder"},
	} {
		r.nft(harm...)
		eventually(t, "repair after nft "+strings.Join(harm, " "), func() bool {
			var out []byte
			r.host.do(func() error { out, _ = exec.Command("nft", "list", "table", "ip", TableName).Output(); return nil })
			return string(out) == want
		})
	}
	// Somebody else's table is none of our business.
	r.nft("add", "table", "ip", "other")
	l.pods["10.42.1.20"].mustGet(addrPort(serviceIP, 80))
}

func TestStaleUDPFlowMovesToTheNewEndpoint(t *testing.T) {
	l := newLab(t, "10.42.1.11", "10.42.1.12", "10.42.1.20")
	l.serve("10.42.1.11", 8080)
	l.serve("10.42.1.12", 8080)
	udp := func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP }
	udpSlice := func(eps ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		s := slice("web", eps...)
		s.Ports[0].Protocol = ptr.To(corev1.ProtocolUDP)
		return s
	}
	r := newRig(l, []*corev1.Service{svc("web", serviceIP, udp)}, []*discoveryv1.EndpointSlice{udpSlice(ep("10.42.1.11", thisNode))})
	var conn net.Conn
	l.pods["10.42.1.20"].do(func() (err error) { conn, err = net.Dial("udp", addrPort(serviceIP, 80)); return err })
	defer conn.Close()
	ask := func() string { // always from the same source port
		buf := make([]byte, 100)
		_ = conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
		_, _ = conn.Write([]byte("?"))
		n, _ := conn.Read(buf)
		pod, _, _ := strings.Cut(string(buf[:n]), " ")
		return pod
	}
	eventually(t, "a first answer", func() bool { return ask() == "10.42.1.11" })
	r.put(nil, udpSlice(ep("10.42.1.12", thisNode)))
	eventually(t, "the flow moves", func() bool { return ask() == "10.42.1.12" })
	// From nobody to somebody: the refused flow must not stick.
	r.put(nil, udpSlice(epNotReady("10.42.1.12", thisNode)))
	eventually(t, "the flow is refused", func() bool { return ask() == "" })
	r.put(nil, udpSlice(ep("10.42.1.11", thisNode)))
	eventually(t, "the flow works again", func() bool { return ask() == "10.42.1.11" })
}

func TestHostWithoutDefaultRouteReachesServices(t *testing.T) {
	l := newLab(t, "10.42.1.11")
	l.serve("10.42.1.11", 8080)
	l.host.do(func() error {
		_, all, _ := net.ParseCIDR("0.0.0.0/0")
		return netlink.RouteDel(&netlink.Route{Dst: all, Gw: net.ParseIP(outsider)})
	})
	newRig(l, []*corev1.Service{svc("web", serviceIP)}, []*discoveryv1.EndpointSlice{slice("web", ep("10.42.1.11", thisNode))})
	l.host.mustGet(addrPort(serviceIP, 80))
	if _, err := l.host.dial(addrPort(serviceIP, 81), patience); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("port without a service: %v", err)
	}
}

func TestCleanupLeavesNothing(t *testing.T) {
	l := newLab(t, "10.42.1.11")
	r := newRig(l, []*corev1.Service{svc("web", serviceIP)}, []*discoveryv1.EndpointSlice{slice("web", ep("10.42.1.11", thisNode))})
	r.stop()
	factory := informers.NewSharedInformerFactory(r.api, 0)
	for range 2 { // also when there is nothing left
		l.host.do(func() error {
			p, err := New(Config{Log: slog.New(slog.DiscardHandler), Services: factory.Core().V1().Services(), Slices: factory.Discovery().V1().EndpointSlices()})
			if err != nil {
				return err
			}
			return p.Cleanup(t.Context())
		})
		if left := r.nft("list", "ruleset"); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
	}
}
