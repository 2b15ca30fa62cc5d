package attach_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"lighter.dev/lighter/overlay/attach"
	"lighter.dev/lighter/overlay/netns"
	"lighter.dev/lighter/overlay/netns/netnstest"
)

// attachBudget is what attaching a pod without published ports may take, in times
// of what the kernel takes for a bare veth pair on the same machine. The test holds
// the quickest tenth against it: what the code takes, whatever else the machine is doing.
const attachBudget = 10

func TestAttachBudget(t *testing.T) {
	ns, _ := cluster(t, 1, 1500)
	var bare, up, down []time.Duration
	for i := range 60 {
		s := attach.Sandbox{PodUID: fmt.Sprint("uid", i), PodNamespace: "default", PodName: "p", NetNS: netnstest.NewNS(t)}
		peer := netns.Peer{NS: netnstest.OpenNS(t, s.NetNS), Name: "bare1"}
		start := time.Now()
		_, err := ns[0].AddVeth(netns.Veth{Name: "bare0", Peer: peer})
		must(t, err)
		bare = append(bare, time.Since(start))
		must(t, ns[0].DelLink("bare0"))
		start = time.Now()
		_, err = ns[0].a.Attach(t.Context(), s)
		must(t, err)
		up = append(up, time.Since(start))
		start = time.Now()
		must(t, ns[0].a.Detach(t.Context(), s))
		down = append(down, time.Since(start))
	}
	slices.Sort(bare)
	slices.Sort(up)
	slices.Sort(down)
	t.Logf("bare veth p10 %s; attach p10 %s p50 %s p90 %s; detach p50 %s p90 %s", bare[6], up[6], up[30], up[54], down[30], down[54])
	if up[6] > attachBudget*bare[6] {
		t.Errorf("attach took %s, the budget is %d times the %s of a bare veth pair", up[6], attachBudget, bare[6])
	}
}

func BenchmarkAttachDetach(b *testing.B) {
	ns, _ := cluster(b, 1, 1500)
	s := attach.Sandbox{PodUID: "uid", PodNamespace: "default", PodName: "p", NetNS: netnstest.NewNS(b)}
	for b.Loop() {
		_, err := ns[0].a.Attach(b.Context(), s)
		must(b, err)
		must(b, ns[0].a.Detach(b.Context(), s))
	}
}

// BenchmarkStream is one TCP stream between two hosts, directly and between pods
// over the overlay: go test -bench Stream -benchtime 3x.
func BenchmarkStream(b *testing.B) {
	netnstest.RequireRoot(b, "iperf3", "nft", "nsenter", "ip")
	ns, _ := cluster(b, 2, 1500)
	client, server := ns[0].pod(b, "client"), ns[1].pod(b, "server")
	var host, overlay float64
	for b.Loop() {
		host += stream(b, ns[0].Path, ns[1].Path, ns[1].Host.IP)
		overlay += stream(b, client.NetNS, server.NetNS, server.IP)
	}
	n := float64(b.N)
	b.ReportMetric(host/n/1e9, "host-Gbit/s")
	b.ReportMetric(overlay/n/1e9, "overlay-Gbit/s")
	b.ReportMetric(overlay/host, "ratio")
}

// stream is the received rate of an iperf3 run of 3 s, in bit/s.
func stream(b *testing.B, from, to string, addr netip.Addr) float64 {
	b.Helper()
	server := netnstest.Command(b.Context(), to, "iperf3", "-s", "-1")
	must(b, server.Start())
	netnstest.Eventually(b, netnstest.Patience, "iperf3 listens", func() bool {
		return netnstest.Command(b.Context(), to, "sh", "-c", "grep -q ':1451 .* 0A ' /proc/net/tcp /proc/net/tcp6").Run() == nil
	})
	out := netnstest.Output(b, from, "iperf3", "-J", "-t", "3", "-c", addr.String())
	must(b, server.Wait())
	var report struct {
		End struct {
			Sum struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	must(b, json.Unmarshal([]byte(out), &report))
	return report.End.Sum.Rate
}
