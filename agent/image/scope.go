package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Who may use which image. What the cluster builds belongs to the namespace of
// its Image object: there its name means the build, in every other namespace
// the same name means what a registry has. So records of builds are kept apart,
// under built/<namespace>/<full name>, which no reference that a user writes
// can spell; records without that prefix (pulled, imported) are the host's and
// serve everybody. Blobs and layers are shared by digest.

const (
	builtPrefix = "built/"
	// baseHost ends the host part of names that BuildKit gets for base images
	// that the cluster built: <namespace>.lighter.invalid/<path>:sha256-<hex>.
	// The domain invalid never resolves (RFC 6761); Normalize refuses it.
	baseHost   = ".lighter.invalid"
	baseDigest = "sha256-"
)

// BuiltName is the record of a full name that Image objects of a namespace
// declare.
func BuiltName(namespace, name string) string { return builtPrefix + namespace + "/" + name }

// splitBuilt undoes BuiltName; ok is false for a record that is no build.
func splitBuilt(record string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(record, builtPrefix)
	if !ok {
		return "", record, false
	}
	namespace, name, ok = strings.Cut(rest, "/")
	return namespace, name, ok
}

// subject is what is asked for, by whom, and where it is recorded.
type subject struct {
	// namespace is that of the pod or Image that asks, "" if it is the host.
	namespace string
	// name is the full name, which a registry would know.
	name string
	// built: an Image object of the namespace declares the name.
	built bool
}

// record is the key of the name's record.
func (sub subject) record() string {
	if sub.built {
		return BuiltName(sub.namespace, sub.name)
	}
	return sub.name
}

func (s *Store) lookupBuild(ctx context.Context, namespace, name string) (digest.Digest, bool) {
	if s.cfg.Builds == nil || namespace == "" {
		return "", false
	}
	return s.cfg.Builds.Lookup(ctx, namespace, name)
}

// currentBuild is the digest that the Image object behind a record has now.
func (s *Store) currentBuild(ctx context.Context, record string) digest.Digest {
	namespace, name, ok := splitBuilt(record)
	if !ok {
		return ""
	}
	current, _ := s.lookupBuild(ctx, namespace, name)
	return current
}

// find is the record of an exact version that a namespace may use: the host's,
// else one of its own builds, also one whose Image object is gone or, while the
// API is away, not known.
func (s *Store) find(ctx context.Context, namespace string, want digest.Digest) (images.Image, error) {
	recs, err := s.images.List(ctx, "target.digest=="+want.String())
	if err != nil {
		return images.Image{}, err
	}
	var own images.Image
	for _, rec := range recs {
		owner, _, built := splitBuilt(rec.Name)
		switch {
		case strings.HasPrefix(rec.Name, stagingPrefix):
		case !built:
			return rec, nil
		case owner == namespace:
			own = rec
		}
	}
	if own.Name == "" {
		return own, fmt.Errorf("image %s: %w", want, errdefs.ErrNotFound)
	}
	return own, nil
}

// reserved tells whether a reference has a name that only baseName makes.
func reserved(named reference.Named) bool {
	return strings.HasSuffix(strings.ToLower(reference.Domain(named)), baseHost)
}

// baseName is the reference by which a build gets an exact version of a base
// image that is here. It can be resolved by ResolveBase alone.
func baseName(sub subject, dgst digest.Digest) string {
	path := sub.name
	if named, err := reference.ParseNormalizedNamed(sub.name); err == nil {
		path = reference.Path(named)
	}
	return sub.namespace + baseHost + "/" + path + ":" + baseDigest + dgst.Encoded()
}

// ResolveBase is what a reference of a build means on this host. name is a full
// name, or one that EnsureNearby gave out.
func (s *Store) ResolveBase(ctx context.Context, name string) (images.Image, error) {
	ctx = s.in(ctx)
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil || !reserved(named) {
		return s.images.Get(ctx, name)
	}
	dgst := digest.NewDigestFromEncoded(digest.SHA256, strings.TrimPrefix(tagOf(named), baseDigest))
	return s.find(ctx, strings.TrimSuffix(reference.Domain(named), baseHost), dgst)
}
