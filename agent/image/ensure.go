package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

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
	built, declared := s.lookupBuild(name)
	here := s.localState(ctx, name)
	if !declared && here.Digest == "" && s.cfg.DefaultRegistry != "" {
		if name, _, err = Normalize(qualify(req.Ref, s.cfg.DefaultRegistry)); err != nil {
			return Image{}, err
		}
		here = s.localState(ctx, name)
	}
	pl, err := decide(name, pin, req.Policy, here, built, declared)
	if err != nil {
		return Image{}, err
	}
	if pl.Steps[0] == useLocal {
		if img, err := s.useLocal(ctx, name, pl.Want); err == nil {
			return img, nil
		}
		if len(pl.Steps) == 1 {
			return Image{}, fmt.Errorf("%w: %s is not on this host and its imagePullPolicy is Never", ErrNeverPull, req.Ref)
		}
	}
	return s.flights.do(ctx, flightKey(name, pl, req.Auth), req.Progress, func(ctx context.Context, f *flight) (Image, error) {
		return s.carryOut(ctx, name, pl, req.Auth, f.report)
	})
}

func (s *Store) lookupBuild(name string) (digest.Digest, bool) {
	if s.cfg.Builds == nil {
		return "", false
	}
	return s.cfg.Builds.Lookup(name)
}

// flightKey tells requests apart that must not share a pull: credentials are
// part of it, so that a wrong password of one pod never fails another's.
func flightKey(name string, pl plan, auth []Credential) string {
	h := sha256.New()
	for _, c := range auth {
		fmt.Fprintf(h, "%q %q %q %q\n", c.Host, c.Username, c.Password, c.IdentityToken)
	}
	return fmt.Sprintf("%s %s %v %x", name, pl.Want, pl.Steps, h.Sum(nil))
}

// carryOut tries the plan's steps until one gives the image.
func (s *Store) carryOut(ctx context.Context, name string, pl plan, auth []Credential, report func(Progress)) (Image, error) {
	var errs []error
	for _, st := range pl.Steps {
		if st == askPeers && answered(errors.Join(errs...)) {
			st = askOwn
		}
		img, err := s.try(ctx, st, name, pl, auth, report)
		if err == nil {
			s.log.Info("image present", "image", name, "digest", img.Target, "by", string(st))
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
	return Image{}, fmt.Errorf("%w: %s: %w", ErrPull, name, errors.Join(errs...))
}

func (s *Store) try(ctx context.Context, st step, name string, pl plan, auth []Credential, report func(Progress)) (Image, error) {
	switch st {
	case useLocal:
		return s.useLocal(ctx, name, pl.Want)
	case askPeers, askOwn:
		return s.pullNamed(ctx, name, st == askOwn, report)
	case askRegistry:
		return s.pullTag(ctx, name, auth, report)
	default:
		return s.pullDigest(ctx, name, pl, auth, report)
	}
}

// localState reads what a name means on this host.
func (s *Store) localState(ctx context.Context, name string) localState {
	rec, err := s.images.Get(ctx, name)
	if err != nil {
		return localState{}
	}
	return localState{Digest: rec.Target.Digest, Own: rec.Labels[labelOrigin] != ""}
}

// useLocal answers from this host alone, if the image is complete.
func (s *Store) useLocal(ctx context.Context, name string, want digest.Digest) (Image, error) {
	target, err := s.localTarget(ctx, name, want)
	if err != nil {
		return Image{}, err
	}
	img, err := s.inspect(ctx, name, target)
	if err != nil {
		return Image{}, err
	}
	if _, err := s.statChain(ctx, img.ChainID); err != nil {
		// All blobs may be here though a changed storage driver, say, has not
		// unpacked them: that needs no network.
		if img, err = s.unpackLocal(ctx, name, target); err != nil {
			return Image{}, err
		}
	}
	return img, s.pinRecord(ctx, name, target, want)
}

// localTarget finds the descriptor for a name, or for an exact digest.
func (s *Store) localTarget(ctx context.Context, name string, want digest.Digest) (ocispec.Descriptor, error) {
	if want == "" {
		rec, err := s.images.Get(ctx, name)
		return rec.Target, err
	}
	recs, err := s.images.List(ctx, "target.digest=="+want.String())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, rec := range recs {
		return rec.Target, nil
	}
	return ocispec.Descriptor{}, fmt.Errorf("image %s: %w", want, errdefs.ErrNotFound)
}

// inspect reads manifest and configuration of a present image.
func (s *Store) inspect(ctx context.Context, name string, target ocispec.Descriptor) (Image, error) {
	return inspectImage(ctx, s.content, s.platform, name, target)
}

// isCancelled is true for errors of a context that ended.
func isCancelled(err error) bool {
	return errors.Is(err, context.Canceled) || errdefs.IsCanceled(err)
}
