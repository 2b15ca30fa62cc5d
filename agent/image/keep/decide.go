package keep

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// copies is how many hosts keep each image.
	copies = 2
	// grace is how long a record outlives its Image object, so that one that is
	// deleted and applied again finds its content.
	grace = 30 * time.Second
)

// Name is a name that an Image object declares, and what it means.
type Name struct {
	// Namespace is the object's, Name a full name.
	Namespace, Name string
	Digest          digest.Digest
}

// Image is what an Image object says: its names, and the digest that it had made.
type Image struct {
	Namespace string
	Names     []string
	// Digest is "" until a build has succeeded.
	Digest digest.Digest
	// Node made the digest. Right after that it is known to hold it by this alone.
	Node string
}

// Record is a name under which this host keeps what the cluster made.
type Record struct {
	Name
	// Version: it keeps an exact version (name@digest), beside what the name means.
	Version bool
}

// View is what one host sees.
type View struct {
	Now  time.Time
	Self string
	// Synced: Images are all there are. Without it none is known to be gone.
	Synced bool
	Images []Image
	// Nodes are those that are ready; Holders the nodes that say that they hold a
	// digest, this one not among them.
	Nodes   []string
	Holders map[digest.Digest][]string
	// Held are the digests that are complete on this host, Used those that its
	// pods have or will have.
	Held, Used map[digest.Digest]bool
	Records    []Record
}

// Plan is what a host has to do.
type Plan struct {
	// Record are names to note for content that is here; Fetch those of content that
	// has to come from another host.
	Record, Fetch []Name
	// Gone are records of Image objects that are no more, to be dropped when they
	// have been gone for some time.
	Gone []Record
}

// decide is the whole rule. It is pure.
func decide(v View) Plan {
	var plan Plan
	noted := map[Name]bool{}
	for _, rec := range v.Records {
		if !rec.Version {
			noted[rec.Name] = true
		}
	}
	declared := map[Name]bool{} // without digests
	for _, img := range v.Images {
		for _, name := range img.Names {
			declared[Name{Namespace: img.Namespace, Name: name}] = true
		}
		if img.Digest == "" {
			continue
		}
		here := v.Held[img.Digest]
		if !here && !v.chosen(img) {
			continue
		}
		for _, name := range img.Names {
			want := Name{img.Namespace, name, img.Digest}
			switch {
			case !here:
				plan.Fetch = append(plan.Fetch, want)
			case !noted[want]:
				plan.Record = append(plan.Record, want)
			}
		}
	}
	if !v.Synced {
		return plan
	}
	for _, rec := range v.Records {
		if !declared[Name{Namespace: rec.Namespace, Name: rec.Name.Name}] && !v.Used[rec.Digest] {
			plan.Gone = append(plan.Gone, rec)
		}
	}
	return plan
}

// chosen tells whether this host, which does not hold the image, has to: too few of
// the hosts that are ready hold it, and no other comes before this one.
func (v View) chosen(img Image) bool {
	holds := map[string]bool{}
	for _, node := range append(slices.Clone(v.Holders[img.Digest]), img.Node) {
		holds[node] = slices.Contains(v.Nodes, node)
	}
	missing := copies
	for _, ready := range holds {
		if ready {
			missing--
		}
	}
	if missing <= 0 || missing == copies {
		return false // enough, or nobody left to fetch from
	}
	candidates := slices.DeleteFunc(slices.Clone(v.Nodes), func(node string) bool { return node != v.Self && holds[node] })
	slices.SortFunc(candidates, func(a, b string) int {
		return cmp.Or(cmp.Compare(weight(b, img.Digest), weight(a, img.Digest)), cmp.Compare(a, b))
	})
	return slices.Contains(candidates[:min(missing, len(candidates))], v.Self)
}

// weight ranks the hosts for an image (rendezvous hashing): a host that leaves or
// comes changes the place of its own copies only.
func weight(node string, dgst digest.Digest) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(node + "\x00" + dgst.String())) // a hash takes everything
	return mix(h.Sum64())
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

// expired notes since when records have been gone and returns those whose time is
// over, and when the next one's is (zero if there is none).
func expired(gone []Record, since map[Record]time.Time, now time.Time) (over []Record, next time.Time) {
	still := map[Record]bool{}
	for _, rec := range gone {
		still[rec] = true
		began, known := since[rec]
		if !known {
			began, since[rec] = now, now
		}
		at := began.Add(grace)
		switch {
		case !at.After(now):
			over = append(over, rec)
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	for rec := range since {
		if !still[rec] {
			delete(since, rec)
		}
	}
	return over, next
}
