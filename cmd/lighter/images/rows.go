package images

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/distribution/reference"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

// Row is one name of one image, wherever in the cluster it is.
type Row struct {
	// Object is metadata.name of the Image that declares the name, Namespace its
	// namespace. Both are "" if the image was pulled.
	Namespace, Object string
	// Name is the full name with its tag; "" if nothing names the image any more.
	Name string
	// Digest is "" for an Image that has no content yet.
	Digest string
	// Size is the sum of its blobs in bytes.
	Size    int64
	Created time.Time
	// Hosts hold the image, sorted.
	Hosts []string
	// Containers use it, on all of these hosts.
	Containers int
}

// repository and tag are the parts of a name as Docker shows them.
func (r Row) repository() string { return orNone(familiar(r.Name)[0]) }
func (r Row) tag() string        { return orNone(familiar(r.Name)[1]) }

func orNone(text string) string { return cmp.Or(text, "<none>") }

// title is how a person would call the image.
func (r Row) title() string {
	if r.Name == "" {
		return short(r.Digest)
	}
	return shortName(r.Name)
}

// held is what hosts say that they hold, by host.
type held map[string][]agentapi.Image

// version is what a name means.
type version struct{ name, digest string }

// view is whose images a list has.
type view int

const (
	// ofNamespace: a name that an object declares means what the object says, and
	// nothing that was pulled.
	ofNamespace view = iota
	// ofAll namespaces: a name may be declared in some and pulled for others.
	ofAll
	// ofHost: there are no objects to ask, so the host's word counts.
	ofHost
)

func (c *Cluster) view() view {
	if c.alone() {
		return ofHost
	}
	return ofNamespace
}

// union makes one list of Image objects and of what hosts hold. Of what objects
// declare, hosts say only where it is.
func union(objects []v1alpha1.Image, held held, seen view) []Row {
	var rows []Row
	declared := map[version]bool{}
	for i := range objects {
		object := &objects[i]
		for _, tag := range object.Spec.Tags {
			name, err := v1alpha1.NormalizeTag(tag)
			// The oldest claim of a name counts, for agents too.
			if err != nil || v1alpha1.Owner(objects, object.Namespace, name) != object {
				continue
			}
			declared[version{name, object.Status.Digest}] = true
			declared[version{name, ""}] = seen == ofNamespace
			row := Row{Namespace: object.Namespace, Object: object.Name, Name: name, Digest: object.Status.Digest, Size: object.Status.Size}
			if object.Status.BuiltAt != nil {
				row.Created = object.Status.BuiltAt.Time
			}
			rows = append(rows, row)
		}
	}
	rows = append(rows, pulled(declared, objects, held, seen)...)
	for i := range rows {
		rows[i].locate(held)
	}
	slices.SortFunc(rows, func(a, b Row) int {
		// Names of nothing come last, as they matter least.
		return cmp.Or(compareBool(a.Name == "", b.Name == ""), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Digest, b.Digest))
	})
	return rows
}

// pulled are the names that no object declares, and images without any. What a
// host says of a namespace's names is left out: objects say it, and a host may not
// know yet that one is gone.
func pulled(declared map[version]bool, objects []v1alpha1.Image, held held, seen view) []Row {
	wanted := map[string]bool{}
	for _, object := range objects {
		wanted[object.Status.Digest] = true
	}
	found := map[version]bool{}
	for _, list := range held {
		for _, image := range list {
			if len(image.Namespaces) > 0 && seen != ofHost {
				continue
			}
			for _, name := range image.Names {
				if this := (version{name, image.Digest}); !declared[this] && !declared[version{name, ""}] {
					found[this] = true
				}
			}
			if len(image.Names) == 0 && !wanted[image.Digest] {
				found[version{"", image.Digest}] = true
			}
		}
	}
	var rows []Row
	for version := range maps.Keys(found) {
		rows = append(rows, Row{Name: version.name, Digest: version.digest})
	}
	return rows
}

// locate fills in what the hosts that hold the image say about it.
func (r *Row) locate(held held) {
	for host, list := range held {
		for _, image := range list {
			// A host that has the content under another name has it all the same,
			// but a pulled name is each host's own.
			if image.Digest != r.Digest || (r.Object == "" && r.Name != "" && !slices.Contains(image.Names, r.Name)) {
				continue
			}
			if !slices.Contains(r.Hosts, host) {
				r.Hosts = append(r.Hosts, host)
				r.Containers += image.Containers
			}
			if image.Size > r.Size {
				r.Size = image.Size
			}
			if !image.Created.IsZero() {
				r.Created = image.Created
			}
		}
	}
	slices.Sort(r.Hosts)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// familiar splits a full name into repository and tag without what goes without
// saying: "docker.io/library/shop:v1" into "shop" and "v1".
func familiar(name string) [2]string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return [2]string{name, ""}
	}
	tag := ""
	if tagged, ok := named.(reference.Tagged); ok {
		tag = tagged.Tag()
	}
	return [2]string{reference.FamiliarName(named), tag}
}

// shortName is a full name as a person writes it, with its tag.
func shortName(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(named)
}

// short is the beginning of a digest, as Docker shows images: 12 digits.
func short(digest string) string {
	hex := digest
	if _, after, ok := cutAlgorithm(digest); ok {
		hex = after
	}
	return hex[:min(len(hex), 12)]
}
