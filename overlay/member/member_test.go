package member

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/overlay/netns"
	"lighter.dev/lighter/overlay/vxlan"
)

func claim(name string) Peer {
	return Peer{
		NodeName: name, UnderlayIP: netip.MustParseAddr("192.0.2.1"), VTEPMAC: netns.MAC{2, 0, 0, 0, 0, 1},
		PodCIDR: netip.MustParsePrefix("10.42.1.0/24"), AgentPort: 10250,
	}
}

func TestEncoding(t *testing.T) {
	v6 := claim("six")
	v6.UnderlayIP = netip.MustParseAddr("fd00::1")
	bare := claim("no-cidr-yet")
	bare.PodCIDR = netip.Prefix{}
	for _, want := range []Peer{claim("a"), v6, bare, claim(strings.Repeat("n", 253))} {
		b, err := want.encode()
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > metaMax {
			t.Errorf("%d bytes", len(b))
		}
		got, err := decode(b)
		if err != nil || got != want {
			t.Errorf("%+v %v, want %+v", got, err, want)
		}
		for cut := range b {
			if p, err := decode(b[:cut]); err == nil && p == want {
				t.Errorf("cut to %d bytes it still reads", cut)
			}
		}
	}
	if _, err := claim(strings.Repeat("n", 300)).encode(); err == nil {
		t.Error("a name of 300 bytes was encoded")
	}
	for _, bad := range [][]byte{nil, {9}, []byte("hello there, this is no metadata"), {1, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3, 0, 0}} {
		if _, err := decode(bad); !errors.Is(err, errMeta) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := claim("a").encode()
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = decode(b) })
}

func nodeOf(p Peer) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: p.NodeName, Annotations: map[string]string{
			vxlan.AnnotationVTEPMAC: p.VTEPMAC.String(), vxlan.AnnotationUnderlayIP: p.UnderlayIP.String(),
		}},
		Spec: corev1.NodeSpec{PodCIDR: p.PodCIDR.String()},
	}
}

func TestNodeVerifier(t *testing.T) {
	missing := errors.New("not found")
	v := NodeVerifier(func(name string) (*corev1.Node, error) {
		if name != "a" {
			return nil, missing
		}
		return nodeOf(claim("a")), nil
	})
	if err := v.Verify(claim("a")); err != nil {
		t.Error(err)
	}
	if err := v.Verify(claim("b")); !errors.Is(err, missing) {
		t.Error(err)
	}
	for _, change := range []func(*Peer){
		func(p *Peer) { p.PodCIDR = netip.MustParsePrefix("10.42.2.0/24") },
		func(p *Peer) { p.VTEPMAC[5]++ },
		func(p *Peer) { p.UnderlayIP = p.UnderlayIP.Next() },
	} {
		p := claim("a")
		change(&p)
		if err := v.Verify(p); err == nil {
			t.Errorf("%+v counts", p)
		} else {
			t.Log(err)
		}
	}
}
