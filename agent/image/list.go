package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// stagingPrefix marks names that a running build has not promoted yet.
const stagingPrefix = "building/"

// Summary describes one version of an image on this host.
type Summary struct {
	// Names are full names with a tag, then repository@digest, as in
	// node.status.images.
	Names []string
	// Digest is what the names mean: an index or a manifest.
	Digest digest.Digest
	// Size is the sum of all blobs, in bytes.
	Size int64
	// CreatedAt is when the image came to this host.
	CreatedAt time.Time
	// Origin is OriginBuild or OriginImport, or empty if a registry had it.
	Origin string
	// Namespaces are those whose Image objects built it. Only their pods get it
	// by its names, unless a name was pulled or imported as well.
	Namespaces []string
	// Containers are the IDs of this host's containers that use it, also of those
	// that have ended.
	Containers []string

	img  Image
	recs []images.Image
}

// InUse: a container of this host uses it.
func (sum *Summary) InUse() bool { return len(sum.Containers) > 0 }

// List describes every complete image on this host, largest first.
func (s *Store) List(ctx context.Context) ([]Summary, error) {
	ctx = s.in(ctx)
	recs, err := s.images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	used, err := s.usedDigests(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	byDigest := map[digest.Digest]*Summary{}
	var order []digest.Digest
	for _, rec := range recs {
		if strings.HasPrefix(rec.Name, stagingPrefix) {
			continue
		}
		sum := byDigest[rec.Target.Digest]
		if sum == nil {
			img, err := s.inspect(ctx, rec.Name, rec.Target)
			if err != nil {
				continue // incomplete: a pull will fetch what is missing
			}
			sum = &Summary{Digest: rec.Target.Digest, Size: img.Size, CreatedAt: rec.CreatedAt, Containers: used[rec.Target.Digest], img: img}
			byDigest[rec.Target.Digest] = sum
			order = append(order, rec.Target.Digest)
		}
		sum.addRecord(rec)
	}
	out := make([]Summary, 0, len(order))
	for _, d := range order {
		slices.SortFunc(byDigest[d].Names, tagsFirst)
		out = append(out, *byDigest[d])
	}
	slices.SortStableFunc(out, func(a, b Summary) int { return int(min(max(b.Size-a.Size, -1), 1)) })
	return out, nil
}

func (sum *Summary) addRecord(rec images.Image) {
	sum.recs = append(sum.recs, rec)
	name, _, pinned := splitCanonical(rec.Name)
	owner, name, built := splitBuilt(name)
	if built && !slices.Contains(sum.Namespaces, owner) {
		sum.Namespaces = append(sum.Namespaces, owner)
	}
	add := []string{repository(name) + "@" + rec.Target.Digest.String()}
	if !pinned {
		add = append(add, name)
	}
	for _, n := range add {
		if !slices.Contains(sum.Names, n) {
			sum.Names = append(sum.Names, n)
		}
	}
	if rec.CreatedAt.Before(sum.CreatedAt) {
		sum.CreatedAt = rec.CreatedAt
	}
	if o := rec.Labels[labelOrigin]; o != "" {
		sum.Origin = o
	}
}

func tagsFirst(a, b string) int {
	if x, y := strings.Contains(a, "@"), strings.Contains(b, "@"); x != y {
		if x {
			return 1
		}
		return -1
	}
	return strings.Compare(a, b)
}

// Get describes an image of this host as pods of a namespace see it ("": what no
// build made); see lookup for what ref may be. It asks nobody else. The error of a
// missing one satisfies errdefs.IsNotFound.
func (s *Store) Get(ctx context.Context, namespace, ref string) (Image, error) {
	ctx = s.in(ctx)
	name, rec, err := s.lookup(ctx, namespace, ref)
	if err != nil {
		return Image{}, err
	}
	return s.inspect(ctx, name, rec.Target)
}

// Tag gives an image of this host that no build made another name, which this
// host and its peers know. Names of a namespace are those of its Image objects.
func (s *Store) Tag(ctx context.Context, ref, newName string) error {
	ctx = s.in(ctx)
	to, topin, err := Normalize(newName)
	if err != nil {
		return err
	}
	if topin != "" {
		return fmt.Errorf("%w: %q: a new name cannot have a digest", ErrInvalidName, newName)
	}
	_, rec, err := s.lookup(ctx, "", ref)
	if err != nil {
		return err
	}
	// What is tagged by hand is known to this cluster only.
	return s.record(ctx, to, rec.Target, false, OriginImport)
}

// Untag removes a name. Content that nothing else refers to goes with the next
// garbage collection.
func (s *Store) Untag(ctx context.Context, ref string) error {
	ctx = s.in(ctx)
	name, pin, err := Normalize(ref)
	if err != nil {
		return err
	}
	if pin != "" {
		name = canonical(name, pin)
	}
	if err := s.images.Delete(ctx, name); err != nil {
		if errdefs.IsNotFound(err) {
			return fmt.Errorf("image %s is not on this host: %w", ref, err)
		}
		return fmt.Errorf("remove image %s: %w", ref, err)
	}
	s.changed.notify()
	return nil
}

// Changed is closed at the next change of what List returns.
func (s *Store) Changed() <-chan struct{} { return s.changed.next() }
