package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Ensure makes an image present and unpacked: from this host, else from its
// peers, else from its registry, as the pull policy allows. What arrives is
// verified by digest. Callers that want the same image share one pull, which
// is cancelled when the last of them gives up. Errors wrap one of ErrPull,
// ErrNeverPull, ErrInvalidName and ErrNotBuilt, or are the context's.
func (s *Store) Ensure(ctx context.Context, req Request) (Image, error) {
	ctx = s.in(ctx)
	name, pin, err := Normalize(req.Ref)
	if err != nil {
		return Image{}, err
	}
	if req.Pin != "" {
		pin = req.Pin
	}
	sub := subject{namespace: req.Namespace, name: name}
	built, declared := s.lookupBuild(ctx, sub.namespace, name)
	sub.built = declared
	here := s.localState(ctx, sub.record())
	if !declared && here.Digest == "" && s.cfg.DefaultRegistry != "" {
		if sub.name, _, err = Normalize(qualify(req.Ref, s.cfg.DefaultRegistry)); err != nil {
			return Image{}, err
		}
		here = s.localState(ctx, sub.record())
	}
	pl, err := decide(sub.name, pin, req.Policy, here, built, declared)
	if err != nil {
		return Image{}, err
	}
	if pl.Steps[0] == useLocal {
		if img, err := s.useLocal(ctx, sub, pl.Want); err == nil {
			return img, nil
		}
		if len(pl.Steps) == 1 {
			return Image{}, fmt.Errorf("%w: %s is not on this host and its imagePullPolicy is Never", ErrNeverPull, req.Ref)
		}
	}
	return s.flights.do(ctx, flightKey(sub, pl, req.Auth), req.Progress, func(ctx context.Context, f *flight) (Image, error) {
		return s.carryOut(ctx, sub, pl, req.Auth, f.report)
	})
}

// flightKey tells requests apart that must not share a pull: credentials are
// part of it, so that a wrong password of one pod never fails another's, and
// the namespace, as it decides what peers give.
func flightKey(sub subject, pl plan, auth []Credential) string {
	h := sha256.New()
	for _, c := range auth {
		fmt.Fprintf(h, "%q %q %q %q\n", c.Host, c.Username, c.Password, c.IdentityToken)
	}
	return fmt.Sprintf("%s %s %s %v %x", sub.namespace, sub.record(), pl.Want, pl.Steps, h.Sum(nil))
}

// carryOut tries the plan's steps until one gives the image.
func (s *Store) carryOut(ctx context.Context, sub subject, pl plan, auth []Credential, report func(Progress)) (Image, error) {
	var errs []error
	for _, st := range pl.Steps {
		if st == askPeers && answered(errors.Join(errs...)) {
			st = askOwn
		}
		img, err := s.try(ctx, st, sub, pl, auth, report)
		if err == nil {
			s.log.Info("image present", "image", sub.name, "digest", img.Target, "by", string(st))
			return img, nil
		}
		if ctx.Err() != nil {
			return Image{}, ctx.Err()
		}
		if st != useLocal && !errors.Is(err, errNoPeer) {
			errs = append(errs, err)
		}
	}
	if pl.Built && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("no host that is up holds %s, which the cluster built: build it again", pl.Want))
	}
	return Image{}, fmt.Errorf("%w: %s: %w", ErrPull, sub.name, errors.Join(errs...))
}

func (s *Store) try(ctx context.Context, st step, sub subject, pl plan, auth []Credential, report func(Progress)) (Image, error) {
	switch st {
	case useLocal:
		return s.useLocal(ctx, sub, pl.Want)
	case askPeers, askOwn:
		return s.pullNamed(ctx, sub, st == askOwn, report)
	case askRegistry:
		return s.pullTag(ctx, sub, auth, report)
	default:
		return s.pullDigest(ctx, sub, pl, auth, report)
	}
}

// localState reads what a record says.
func (s *Store) localState(ctx context.Context, record string) localState {
	rec, err := s.images.Get(ctx, record)
	if err != nil {
		return localState{}
	}
	return localState{Digest: rec.Target.Digest, Own: rec.Labels[labelOrigin] != ""}
}

// useLocal answers from this host alone, if the image is complete.
func (s *Store) useLocal(ctx context.Context, sub subject, want digest.Digest) (Image, error) {
	rec, err := s.local(ctx, sub, want)
	if err != nil {
		return Image{}, err
	}
	img, err := s.inspect(ctx, sub.name, rec.Target)
	if err == nil {
		if _, serr := s.statChain(ctx, img.ChainID); serr != nil {
			// All blobs may be here though a changed storage driver, say, has not
			// unpacked them: that needs no network.
			img, err = s.unpackLocal(ctx, sub.name, rec.Target)
		}
	}
	if err != nil {
		if ctx.Err() == nil && !errdefs.IsNotFound(err) {
			err = errors.Join(err, s.dropDamaged(ctx, rec.Target))
		}
		return Image{}, err
	}
	if _, _, built := splitBuilt(rec.Name); built {
		sub.built = true // found by digest: it stays the namespace's
	}
	s.asked.note(img.Target)
	return img, s.pinRecord(ctx, sub.record(), rec.Target, want)
}

// local is the record of a name, or of an exact version that sub may use.
func (s *Store) local(ctx context.Context, sub subject, want digest.Digest) (images.Image, error) {
	if want == "" {
		return s.images.Get(ctx, sub.record())
	}
	return s.find(ctx, sub.namespace, want)
}

// inspect reads manifest and configuration of a present image.
func (s *Store) inspect(ctx context.Context, name string, target ocispec.Descriptor) (Image, error) {
	return inspectImage(ctx, s.content, s.platform, name, target)
}

// isCancelled is true for errors of a context that ended.
func isCancelled(err error) bool {
	return errors.Is(err, context.Canceled) || errdefs.IsCanceled(err)
}
