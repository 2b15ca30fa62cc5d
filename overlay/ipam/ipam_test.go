package ipam

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func open(t testing.TB, dir, cidr string) *Pool {
	t.Helper()
	p, err := Open(Config{Dir: dir, CIDR: netip.MustParsePrefix(cidr), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func allocate(t *testing.T, p *Pool, uid string) netip.Addr {
	t.Helper()
	a, err := p.Allocate(uid)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAllocateSkipsReservedAndIsIdempotent(t *testing.T) {
	p := open(t, t.TempDir(), "10.42.1.0/29")
	seen := map[string]bool{}
	for i := range 5 { // .2 to .6
		uid := fmt.Sprint("pod", i)
		a := allocate(t, p, uid)
		if again := allocate(t, p, uid); again != a {
			t.Fatalf("%s then %s for one pod", a, again)
		}
		seen[a.String()] = true
	}
	for _, reserved := range []string{"10.42.1.0", "10.42.1.1", "10.42.1.7"} {
		if seen[reserved] {
			t.Errorf("%s was given out", reserved)
		}
	}
	if len(seen) != 5 {
		t.Fatalf("addresses %v", seen)
	}
	_, err := p.Allocate("one-too-many")
	if !errors.Is(err, ErrExhausted) {
		t.Fatal(err)
	}
	t.Log(err)
	if err := p.Release("pod3"); err != nil {
		t.Fatal(err)
	}
	if err := p.Release("pod3"); err != nil {
		t.Fatal("release twice:", err)
	}
	if got := allocate(t, p, "one-too-many"); got != netip.MustParseAddr("10.42.1.5") {
		t.Fatal(got)
	}
}

func TestReleasedAddressRests(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, "10.42.1.0/24")
	first := allocate(t, p, "a")
	if err := p.Release("a"); err != nil {
		t.Fatal(err)
	}
	if got := allocate(t, p, "b"); got == first {
		t.Fatalf("%s was used again at once", got)
	}
	if err := p.Release("b"); err != nil {
		t.Fatal(err)
	}
	p = open(t, dir, "10.42.1.0/24")
	if got := allocate(t, p, "c"); got != netip.MustParseAddr("10.42.1.4") {
		t.Fatalf("after a restart: %s", got)
	}
}

func TestLeasesSurviveRestart(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, "10.42.1.0/24")
	a, b := allocate(t, p, "a"), allocate(t, p, "b")
	p = open(t, dir, "10.42.1.0/24")
	if got := allocate(t, p, "b"); got != b {
		t.Fatal(got)
	}
	if got, err := p.Lookup("a"); err != nil || got != a {
		t.Fatal(got, err)
	}
	if _, err := p.Lookup("c"); !errors.Is(err, ErrNoLease) {
		t.Fatal(err)
	}
}

func TestOpenDropsWhatCannotBeKept(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"10.42.1.9": "good\n", "10.42.1.10": "", "10.99.0.5": "other-cidr\n", "10.42.1.1": "gateway\n",
		"new": "half written", "last": "garbage",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := open(t, dir, "10.42.1.0/24")
	if got := fmt.Sprint(p.Leases()); got != "[{good 10.42.1.9}]" {
		t.Fatal(got)
	}
	if got := allocate(t, p, "x"); got != netip.MustParseAddr("10.42.1.2") {
		t.Fatal(got)
	}
}

func TestKeepReleasesTheRest(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, "10.42.1.0/24")
	allocate(t, p, "a")
	b := allocate(t, p, "b")
	released, err := p.Keep([]string{"a", "unknown"})
	if err != nil || len(released) != 1 || released[0] != (Lease{"b", b}) {
		t.Fatal(released, err)
	}
	if n := len(open(t, dir, "10.42.1.0/24").Leases()); n != 1 {
		t.Fatal(n, "leases after a restart")
	}
}

func TestConcurrentAllocationsDiffer(t *testing.T) {
	p := open(t, t.TempDir(), "10.42.0.0/22")
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if _, err := p.Allocate(fmt.Sprint(i % 100)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(p.Leases()); n != 100 {
		t.Fatal(n)
	}
}

func TestOpenRefusesBadCIDR(t *testing.T) {
	for _, cidr := range []string{"10.42.1.0/31", "fd00::/64"} {
		_, err := Open(Config{Dir: t.TempDir(), CIDR: netip.MustParsePrefix(cidr), Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			t.Errorf("%s accepted", cidr)
		}
	}
}

func BenchmarkAllocateRelease(b *testing.B) {
	p := open(b, b.TempDir(), "10.42.1.0/24")
	for b.Loop() {
		if _, err := p.Allocate("pod"); err != nil {
			b.Fatal(err)
		}
		if err := p.Release("pod"); err != nil {
			b.Fatal(err)
		}
	}
}
