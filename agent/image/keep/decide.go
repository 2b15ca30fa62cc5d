package keep

import (
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"lighter.dev/lighter/api/rendezvous"
)

const (
	// copies is how many hosts keep each image.
	copies = 2
	// grace is how long a record outlives its Image object, so that one that is
	// deleted and applied again finds its content.
	grace = 30 * time.Second
	// patience is how long hosts that come before this one may take to fetch an image.
	// One that takes longer costs a copy more than is wanted.
	patience = 2 * time.Minute
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
	// Lacking is since when digests have been on too few hosts.
	Lacking map[digest.Digest]time.Time
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
	// Next is when there will be more to do though nothing changes (zero if never).
	Next time.Time
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
		if !here {
			begins := v.begins(img)
			if begins.After(v.Now) {
				plan.Next = earlier(plan.Next, begins)
			}
			if v.missing(img) == 0 || begins.After(v.Now) {
				continue
			}
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

// missing is how many more of the hosts that are ready have to hold an image; 0 also
// if there is nobody left to fetch it from.
func (v View) missing(img Image) int {
	missing := copies
	for _, ready := range v.holders(img) {
		if ready {
			missing--
		}
	}
	if missing == copies {
		return 0
	}
	return max(missing, 0)
}

// holders are the other hosts that have an image, and whether they are ready.
func (v View) holders(img Image) map[string]bool {
	holds := map[string]bool{}
	for _, node := range append(slices.Clone(v.Holders[img.Digest]), img.Node) {
		holds[node] = slices.Contains(v.Nodes, node)
	}
	return holds
}

// begins is when this host, which does not hold an image, has to fetch it (never if
// it is zero): at once if it is among the first of those that could, later if it
// comes after them. They may fail for reasons of their own, such as a full disk.
func (v View) begins(img Image) time.Time {
	missing := v.missing(img)
	if missing == 0 {
		return time.Time{}
	}
	holds := v.holders(img)
	candidates := slices.DeleteFunc(slices.Clone(v.Nodes), func(node string) bool { return node != v.Self && holds[node] })
	rendezvous.Rank(img.Digest.String(), candidates)
	since, known := v.Lacking[img.Digest]
	if !known {
		since = v.Now
	}
	after := max(slices.Index(candidates, v.Self)-missing+1, 0)
	return since.Add(time.Duration(after) * patience)
}

// lacking notes since when images have been on too few hosts.
func lacking(v View, since map[digest.Digest]time.Time) {
	still := map[digest.Digest]bool{}
	for _, img := range v.Images {
		if img.Digest == "" || v.missing(img) == 0 {
			continue
		}
		still[img.Digest] = true
		if _, known := since[img.Digest]; !known {
			since[img.Digest] = v.Now
		}
	}
	maps.DeleteFunc(since, func(dgst digest.Digest, _ time.Time) bool { return !still[dgst] })
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
