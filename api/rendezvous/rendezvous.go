// Package rendezvous places things on hosts without asking anybody (rendezvous, or
// highest-random-weight, hashing): everybody who knows the hosts ranks them alike for a
// thing, and a host that comes or leaves changes the place of its own things only.
package rendezvous

import (
	"cmp"
	"hash/fnv"
	"slices"
)

// Weight is how much a host attracts a thing.
func Weight(thing, host string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(host + "\x00" + thing)) // a hash takes everything
	return mix(h.Sum64())
}

// Rank sorts hosts for a thing, the one that shall have it first.
func Rank(thing string, hosts []string) {
	slices.SortFunc(hosts, func(a, b string) int { return Compare(thing, a, b) })
}

// Compare is negative if host a comes before host b for a thing.
func Compare(thing, a, b string) int {
	return cmp.Or(cmp.Compare(Weight(thing, b), Weight(thing, a)), cmp.Compare(a, b))
}

// mix spreads the bits of a hash: names that differ in their last letters only have
// FNV hashes that hardly differ (the finaliser of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
