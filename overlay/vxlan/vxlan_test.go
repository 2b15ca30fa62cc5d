package vxlan

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/overlay/netns"
)

// fakeHost is a namespace whose eth0 has the underlay address of peer 1.
func fakeHost(t *testing.T) *netns.Fake {
	t.Helper()
	w := netns.NewWorld()
	k := w.NS("host")
	l, err := k.AddVeth(netns.Veth{Name: "eth0", MTU: 1500, Peer: netns.Peer{NS: w.NS("switch"), Name: "port1"}})
	if err == nil {
		err = k.AddAddr(l.Index, netip.MustParsePrefix("192.0.2.1/24"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newFake(t *testing.T, k netns.Kernel, dir string, log *slog.Logger) *Reconciler {
	t.Helper()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r, err := New(Config{
		Kernel: k, NodeName: "a", UnderlayIP: netip.MustParseAddr("192.0.2.1"),
		PodCIDR: netip.MustParsePrefix("10.42.1.0/24"), StateDir: dir, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func settleOnce(t *testing.T, r *Reconciler) {
	t.Helper()
	if err := r.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A second look must find nothing to do.
	wanted, err := r.wanted()
	if err != nil {
		t.Fatal(err)
	}
	observed, err := observe(r.cfg.Kernel, wanted)
	if err != nil {
		t.Fatal(err)
	}
	if ops := Plan(wanted, observed); len(ops) != 0 {
		t.Fatalf("after a sync there is still to do: %v", ops)
	}
}

func routes(t *testing.T, k netns.Kernel) string {
	t.Helper()
	l, err := k.LinkByName("lighter.vx")
	if err != nil {
		t.Fatal(err)
	}
	rs, err := k.Routes(l.Index)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range rs {
		out = append(out, r.Dst.String())
	}
	return strings.Join(out, " ")
}

func TestPeersComeGoAndSurviveRestart(t *testing.T) {
	k, dir := fakeHost(t), t.TempDir()
	r := newFake(t, k, dir, nil)
	settleOnce(t, r)
	r.SetPeers([]Peer{peerN(1), peerN(2), peerN(3)}) // 1 is this node
	settleOnce(t, r)
	if got := routes(t, k); got != "10.42.2.0/24 10.42.3.0/24" {
		t.Fatal(got)
	}
	// A restart that hears of no peers, with and without the device.
	r = newFake(t, k, dir, nil)
	settleOnce(t, r)
	if got := routes(t, k); got != "10.42.2.0/24 10.42.3.0/24" {
		t.Fatal(got)
	}
	if err := k.DelLink("lighter.vx"); err != nil {
		t.Fatal(err)
	}
	settleOnce(t, r)
	if got := routes(t, k); got != "10.42.2.0/24 10.42.3.0/24" {
		t.Fatal(got)
	}
	// A restart whose state is lost keeps what the kernel has.
	r = newFake(t, k, t.TempDir(), nil)
	settleOnce(t, r)
	if got := routes(t, k); got != "10.42.2.0/24 10.42.3.0/24" {
		t.Fatal(got)
	}
	r.SetPeers([]Peer{peerN(3)})
	settleOnce(t, r)
	if got := routes(t, k); got != "10.42.3.0/24" {
		t.Fatal(got)
	}
	if err := r.Teardown(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.LinkByName("lighter.vx"); !errors.Is(err, netns.ErrNotFound) {
		t.Fatal(err)
	}
	if err := r.Teardown(); err != nil {
		t.Fatal("twice:", err)
	}
}

func TestClashingPeerIsRefusedOnce(t *testing.T) {
	var log bytes.Buffer
	r := newFake(t, fakeHost(t), t.TempDir(), slog.New(slog.NewTextHandler(&log, nil)))
	thief := peerN(9)
	thief.PodCIDR = peerN(2).PodCIDR
	own := peerN(8)
	own.PodCIDR = netip.MustParsePrefix("10.42.1.128/25") // part of this node's
	for range 2 {
		r.SetPeers([]Peer{thief, own, peerN(2)})
	}
	settleOnce(t, r)
	if got := routes(t, r.cfg.Kernel); got != "10.42.2.0/24" {
		t.Fatal(got)
	}
	if n := strings.Count(log.String(), "peer refused"); n != 2 {
		t.Fatalf("%d refusals logged, want 2:\n%s", n, log.String())
	}
}

func TestSyncFailsWithoutUnderlay(t *testing.T) {
	r := newFake(t, netns.NewWorld().NS("host"), t.TempDir(), nil)
	if err := r.Sync(t.Context()); !errors.Is(err, netns.ErrNotFound) || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Fatal(err)
	}
}

func TestOneFailingOperationDoesNotStopTheOthers(t *testing.T) {
	k := fakeHost(t)
	r := newFake(t, k, t.TempDir(), nil)
	settleOnce(t, r)
	r.SetPeers([]Peer{peerN(2), peerN(3)})
	boom := errors.New("boom")
	k.FailNext("SetNeighbour", boom)
	if err := r.Sync(t.Context()); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if got := routes(t, k); got != "10.42.2.0/24 10.42.3.0/24" {
		t.Fatal(got)
	}
	settleOnce(t, r)
}

func TestRunMendsAndStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fakeHost(t)
		r := newFake(t, k, t.TempDir(), nil)
		r.SetPeers([]Peer{peerN(2)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		settle := func() {
			time.Sleep(2 * quiet)
			synctest.Wait()
		}
		settle()
		if got := routes(t, k); got != "10.42.2.0/24" {
			t.Fatal(got)
		}
		r.SetPeers([]Peer{peerN(2), peerN(3)})
		settle()
		if got := routes(t, k); got != "10.42.2.0/24 10.42.3.0/24" {
			t.Fatal(got)
		}
		if err := k.DelLink("lighter.vx"); err != nil {
			t.Fatal(err)
		}
		settle()
		if got := routes(t, k); got != "10.42.2.0/24 10.42.3.0/24" {
			t.Fatal(got)
		}
		// A failure is tried again without any event.
		k.FailNext("AddLink", errors.New("boom"))
		if err := k.DelLink("lighter.vx"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * retry)
		synctest.Wait()
		if got := routes(t, k); got != "10.42.2.0/24 10.42.3.0/24" {
			t.Fatal(got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := routes(t, k); got == "" {
			t.Fatal("the end of Run took the routes away")
		}
	})
}

func TestPeerOf(t *testing.T) {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "b", Annotations: map[string]string{
			AnnotationVTEPMAC: "02:00:00:00:00:02", AnnotationUnderlayIP: "192.0.2.2",
		}},
		Spec: corev1.NodeSpec{PodCIDR: "10.42.2.0/24"},
	}
	if got, err := PeerOf(node); err != nil || got != peerN(2) {
		t.Fatal(got, err)
	}
	node.Spec.PodCIDR = ""
	if _, err := PeerOf(node); !errors.Is(err, ErrNotReady) {
		t.Fatal(err)
	}
	node.Spec.PodCIDR = "nonsense"
	if _, err := PeerOf(node); err == nil || errors.Is(err, ErrNotReady) {
		t.Fatal(err)
	}
}

func TestMACForNode(t *testing.T) {
	a, b := MACForNode("a"), MACForNode("b")
	if a == b || a != MACForNode("a") || a[0]&1 != 0 || a[0]&2 == 0 {
		t.Fatal(a, b)
	}
}
