package netnstest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"lighter.dev/lighter/overlay/netns"
)

// Lab is a small data centre: hosts, each a namespace, on a switch, which is a
// bridge in a namespace of its own. Nothing touches the machine's own network.
type Lab struct {
	Fabric *Host // the switch's namespace
	Hosts  []*Host
	sw     netns.Link
}

// Host is a namespace with eth0 on the lab's switch.
type Host struct {
	*netns.Real
	Path string
	IP   netip.Addr // 10.99.0.1, 10.99.0.2, …
}

// NewLab makes n hosts on a switch with this MTU.
func NewLab(t testing.TB, n, mtu int) *Lab {
	t.Helper()
	fabric := NewNS(t)
	l := &Lab{Fabric: &Host{Real: OpenNS(t, fabric), Path: fabric}}
	var err error
	l.sw, err = l.Fabric.AddLink(netns.Link{Name: "switch", Kind: netns.KindBridge, MTU: mtu, Up: true})
	Must(t, err)
	for range n {
		l.AddHost(t, mtu)
	}
	return l
}

// AddHost plugs another host in.
func (l *Lab) AddHost(t testing.TB, mtu int) *Host {
	t.Helper()
	path, i := NewNS(t), len(l.Hosts)+1
	h := &Host{Real: OpenNS(t, path), Path: path, IP: netip.AddrFrom4([4]byte{10, 99, 0, byte(i)})}
	_, err := l.Fabric.AddVeth(netns.Veth{
		Name: fmt.Sprintf("port%d", i), MTU: mtu, Master: l.sw.Index, Peer: netns.Peer{NS: h.Real, Name: "eth0"},
	})
	Must(t, err)
	Must(t, h.SetUp(1, true))
	eth, err := h.LinkByName("eth0")
	Must(t, err)
	Must(t, h.AddAddr(eth.Index, netip.PrefixFrom(h.IP, 24)))
	Must(t, h.SetUp(eth.Index, true))
	// Asking has the kernel settle a new carrier; until then packets are dropped.
	for _, link := range []struct {
		ns   *Host
		name string
	}{{h, "eth0"}, {l.Fabric, fmt.Sprintf("port%d", i)}, {l.Fabric, "switch"}} {
		_, err := link.ns.LinkByName(link.name)
		Must(t, err)
	}
	l.Hosts = append(l.Hosts, h)
	return h
}

// Cut unplugs host i (from 0), Heal plugs it in again.
func (l *Lab) Cut(t testing.TB, i int) { l.plug(t, i, false) }

// Heal undoes Cut.
func (l *Lab) Heal(t testing.TB, i int) { l.plug(t, i, true) }

func (l *Lab) plug(t testing.TB, i int, up bool) {
	t.Helper()
	port, err := l.Fabric.LinkByName(fmt.Sprintf("port%d", i+1))
	Must(t, err)
	Must(t, l.Fabric.SetUp(port.Index, up))
}

// Must ends the test on an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Command is a program inside the namespace at path.
func Command(ctx context.Context, path string, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + path}, argv...)...) //nolint:gosec // tests only
}

// Output runs a program inside the namespace and returns what it printed.
func Output(t testing.TB, path string, argv ...string) string {
	t.Helper()
	out, err := Command(t.Context(), path, argv...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// Fails runs a program inside the namespace that is expected to fail.
func Fails(t testing.TB, path string, argv ...string) {
	t.Helper()
	if out, err := Command(t.Context(), path, argv...).CombinedOutput(); err == nil {
		t.Fatalf("%s: succeeded\n%s", strings.Join(argv, " "), out)
	}
}

// Patience is how long to wait for what has to come, on a busy machine too;
// Silence how long to listen for what must not come.
const (
	Patience = 30 * time.Second
	Silence  = 2 * time.Second
)

// Eventually polls until cond holds.
func Eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Serve answers each TCP connection on addr inside the namespace with the
// client's address as the server sees it.
func Serve(t testing.TB, ns *netns.Real, addr string) {
	t.Helper()
	var l net.Listener
	Must(t, ns.Do(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp4", addr)
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprintln(c, c.RemoteAddr())
			_ = c.Close()
		}
	}()
}

// Ask connects to addr from inside the namespace and returns the answer of Serve
// if it comes within wait.
func Ask(ns *netns.Real, addr string, wait time.Duration) (string, error) {
	var answer string
	err := ns.Do(func() error {
		d := net.Dialer{Timeout: wait}
		c, err := d.Dial("tcp4", addr)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(wait))
		b := make([]byte, 64)
		n, err := c.Read(b)
		if n == 0 {
			return errors.Join(errors.New("no answer"), err)
		}
		answer = strings.TrimSpace(string(b[:n]))
		return nil
	})
	return answer, err
}
