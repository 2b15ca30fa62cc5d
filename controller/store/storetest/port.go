// Package storetest finds ports for tests of servers that have to be reached at
// the same address again and again.
package storetest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
)

// Port is a loopback address for a server that starts later, or stops and starts
// again. What the kernel gives to whoever asks for any port, as clients and other
// tests do all the time, it takes from a range; this one lies below.
func Port(t testing.TB) netip.AddrPort {
	t.Helper()
	const anybody = "/proc/sys/net/ipv4/ip_local_port_range"
	raw, err := os.ReadFile(anybody)
	if err != nil {
		t.Fatal(err)
	}
	var first, last int
	if _, err := fmt.Sscan(string(raw), &first, &last); err != nil {
		t.Fatalf("%s: %q: %v", anybody, raw, err)
	}
	if first < 4096 {
		first = 65536 // nearly all are anybody's; then any will do
	}
	for {
		at := fmt.Sprint("127.0.0.1:", first/2+rand.N(first/2))
		if l, err := net.Listen("tcp", at); err == nil { //nolint:noctx // loopback does not wait
			_ = l.Close()
			return netip.MustParseAddrPort(at)
		}
	}
}
