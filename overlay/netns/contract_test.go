package netns_test

import (
	"errors"
	"fmt"
	"testing"

	"lighter.dev/lighter/overlay/netns"
	"lighter.dev/lighter/overlay/netns/netnstest"
)

func TestFakeKernel(t *testing.T) {
	w, n := netns.NewWorld(), 0
	netnstest.Suite(t, func(*testing.T) netns.Kernel {
		n++
		return w.NS(fmt.Sprintf("ns%d", n))
	})
}

func TestFakeFailsOnDemand(t *testing.T) {
	k := netns.NewWorld().NS("a")
	boom := errors.New("boom")
	k.FailNext("AddLink", boom)
	l := netns.Link{Name: "br0", Kind: netns.KindBridge}
	if _, err := k.AddLink(l); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if _, err := k.AddLink(l); err != nil {
		t.Fatal(err)
	}
}

func TestFakeWorldForgetsRemovedNamespaces(t *testing.T) {
	w := netns.NewWorld()
	host, pod := w.NS("host"), w.NS("pod")
	if _, err := host.AddVeth(netns.Veth{Name: "v", Peer: netns.Peer{NS: pod, Name: "eth0"}}); err != nil {
		t.Fatal(err)
	}
	w.Remove("pod")
	if _, err := w.Open("pod"); !errors.Is(err, netns.ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := host.LinkByName("v"); !errors.Is(err, netns.ErrNotFound) {
		t.Fatal("the host's end outlived the namespace")
	}
}

func TestMAC(t *testing.T) {
	m, err := netns.ParseMAC("0a:58:0a:2a:01:05")
	if err != nil || m.String() != "0a:58:0a:2a:01:05" {
		t.Fatal(m, err)
	}
	for _, bad := range []string{"", "xx", "00:00:00:00:00:00:00:01"} {
		if _, err := netns.ParseMAC(bad); err == nil {
			t.Errorf("%q parsed", bad)
		}
	}
}
