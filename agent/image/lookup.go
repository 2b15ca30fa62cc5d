package image

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// idPattern is how users write an image by its digest or the beginning of it.
var idPattern = regexp.MustCompile(`^(sha256:)?[0-9a-f]{4,64}$`)

// lookup finds the image that a user of a namespace means ("": of the host): by
// name, by name@digest, by digest or by the beginning of one, as Docker's commands
// take it. A name goes before a digest. The full name is "" if none was given. The
// error of a missing one satisfies errdefs.IsNotFound.
func (s *Store) lookup(ctx context.Context, namespace, ref string) (name string, rec images.Image, err error) {
	name, pin, err := Normalize(ref)
	isID := idPattern.MatchString(ref)
	if err == nil {
		_, declared := s.lookupBuild(ctx, namespace, name)
		sub := subject{namespace: namespace, name: name}
		sub.built = declared || namespace != "" && s.has(ctx, BuiltName(namespace, name))
		if rec, err = s.local(ctx, sub, pin); err == nil || !errdefs.IsNotFound(err) {
			return name, rec, err
		}
	}
	if isID {
		rec, err = s.findID(ctx, namespace, strings.TrimPrefix(ref, "sha256:"))
		return "", rec, err
	}
	if errdefs.IsNotFound(err) {
		err = fmt.Errorf("image %s is not on this host: %w", ref, errdefs.ErrNotFound)
	}
	return name, rec, err
}

// findID finds the one image that a namespace may use whose digest begins so.
func (s *Store) findID(ctx context.Context, namespace, hex string) (images.Image, error) {
	recs, err := s.images.List(ctx)
	if err != nil {
		return images.Image{}, err
	}
	found := map[digest.Digest]images.Image{}
	for _, rec := range recs {
		if visible(rec, namespace) && strings.HasPrefix(rec.Target.Digest.Encoded(), hex) {
			found[rec.Target.Digest] = rec
		}
	}
	if len(found) > 1 {
		return images.Image{}, fmt.Errorf("%w: %d images begin with %s: give more of the digest", errdefs.ErrInvalidArgument, len(found), hex)
	}
	for _, rec := range found {
		return rec, nil
	}
	return images.Image{}, fmt.Errorf("image %s is not on this host: %w", hex, errdefs.ErrNotFound)
}

// visible tells whether a namespace may know of a record: of the host's ones and
// of its own builds.
func visible(rec images.Image, namespace string) bool {
	if strings.HasPrefix(rec.Name, stagingPrefix) {
		return false
	}
	owner, _, built := splitBuilt(rec.Name)
	return !built || owner == namespace
}
