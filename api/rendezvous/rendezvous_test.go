package rendezvous

import (
	"fmt"
	"slices"
	"testing"
)

// TestRank: things spread evenly, whatever order the hosts are named in, and a host
// that leaves moves its own alone.
func TestRank(t *testing.T) {
	hosts := []string{"host-1", "host-2", "host-3", "host-4", "host-5"}
	const things = 2000
	load := map[string]int{}
	for i := range things {
		thing := fmt.Sprint("image-", i)
		ranked := slices.Clone(hosts)
		Rank(thing, ranked)
		backwards := slices.Clone(hosts)
		slices.Reverse(backwards)
		Rank(thing, backwards)
		if !slices.Equal(ranked, backwards) {
			t.Fatalf("%s: %v, named backwards %v", thing, ranked, backwards)
		}
		load[ranked[0]]++
		left := slices.Clone(hosts[:4])
		Rank(thing, left)
		if want := slices.DeleteFunc(ranked, func(h string) bool { return h == hosts[4] }); !slices.Equal(left, want) {
			t.Errorf("%s: %v after %s left, want %v", thing, left, hosts[4], want)
		}
	}
	for _, host := range hosts {
		if n := load[host]; n < things/5*8/10 || n > things/5*12/10 {
			t.Errorf("%s is first for %d of %d things", host, n, things)
		}
	}
}
