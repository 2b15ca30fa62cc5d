package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/unpack"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
)

const (
	// labelLease, on a lease, says what it is for: leasePull or leaseContainer.
	labelLease     = "lighter.dev/lease"
	leasePull      = "pull"
	leaseContainer = "container"

	// maxPull ends the lease of a pull whose agent was killed and never came
	// back; a sweep at start does so at once otherwise.
	maxPull = 24 * time.Hour
	// parallelBlobs is how many blobs of one image are fetched at a time.
	parallelBlobs = 4
)

// pullNamed asks peers what a name means and fetches it from them. With ownOnly
// only what the cluster built or imported counts.
func (s *Store) pullNamed(ctx context.Context, sub subject, ownOnly bool, report func(Progress)) (Image, error) {
	found, err := s.askName(ctx, sub.name, ownOnly)
	if err != nil {
		return Image{}, err
	}
	if img, err := s.useLocal(ctx, sub, found.Target.Digest); err == nil {
		return img, s.record(ctx, sub.record(), found.Target, false, found.Origin)
	}
	sources := s.peerSources(append(s.holders(ctx, found.Target.Digest), found.Peer))
	return s.pull(ctx, job{sub: sub, target: found.Target, sources: sources, origin: found.Origin}, report)
}

// pullTag asks the registry what a name means, then fetches that digest from
// peers and, for what they do not have, from the registry.
func (s *Store) pullTag(ctx context.Context, sub subject, auth []Credential, report func(Progress)) (Image, error) {
	target, reg, err := s.resolve(ctx, sub.name, auth)
	if err != nil {
		return Image{}, err
	}
	if img, err := s.useLocal(ctx, sub, target.Digest); err == nil {
		return img, s.record(ctx, sub.record(), target, false, "")
	}
	sources := append(s.peerSources(s.holders(ctx, target.Digest)), reg)
	return s.pull(ctx, job{sub: sub, target: target, sources: sources}, report)
}

// pullDigest fetches an exact version from peers, else from the registry
// unless the cluster built it.
func (s *Store) pullDigest(ctx context.Context, sub subject, pl plan, auth []Credential, report func(Progress)) (Image, error) {
	peers := s.holders(ctx, pl.Want)
	target, owner, err := s.askVersion(ctx, peers, sub, pl.Want)
	if err == nil {
		j := job{sub: owner, target: target, sources: s.peerSources(peers), pinned: true}
		if owner.built {
			j.origin = OriginBuild
		}
		img, perr := s.pull(ctx, j, report)
		if perr == nil || pl.Built || ctx.Err() != nil {
			return img, perr
		}
		err = perr
	}
	if pl.Built {
		return Image{}, err
	}
	target, reg, rerr := s.resolve(ctx, repository(sub.name)+"@"+pl.Want.String(), auth)
	if rerr != nil {
		if errors.Is(err, errNoPeer) {
			return Image{}, rerr
		}
		return Image{}, errors.Join(err, rerr)
	}
	return s.pull(ctx, job{sub: sub, target: target, sources: []source{reg}, pinned: true}, report)
}

// job is one image to fetch and unpack.
type job struct {
	sub     subject
	target  ocispec.Descriptor
	sources []source
	pinned  bool
	origin  string
}

// pull fetches, verifies, unpacks and names an image. Whatever it wrote is held
// by a lease that ends with it, so a failed or cancelled pull leaves nothing.
func (s *Store) pull(ctx context.Context, j job, report func(Progress)) (Image, error) {
	ctx, release, err := s.withLease(ctx, leasePull)
	if err != nil {
		return Image{}, err
	}
	defer release()
	if err := s.fetchAndUnpack(ctx, j, report); err != nil {
		return Image{}, err
	}
	img, err := s.inspect(ctx, j.sub.name, j.target)
	if err != nil {
		return Image{}, err
	}
	if j.origin == "" && !j.sub.built {
		parts, err := s.load(ctx, j.target)
		if err == nil {
			err = s.noteSource(ctx, parts.all(), j.sub.name)
		}
		if err != nil {
			return Image{}, err
		}
	}
	s.asked.note(img.Target)
	return img, s.record(ctx, j.sub.record(), j.target, j.pinned, j.origin)
}

// unpackLocal unpacks an image whose blobs are all here.
func (s *Store) unpackLocal(ctx context.Context, name string, target ocispec.Descriptor) (Image, error) {
	ctx, release, err := s.withLease(ctx, leasePull)
	if err != nil {
		return Image{}, err
	}
	defer release()
	if err := s.fetchAndUnpack(ctx, job{sub: subject{name: name}, target: target}, nil); err != nil {
		return Image{}, err
	}
	return s.inspect(ctx, name, target)
}

// Lease keeps what is written under the context that it returns until release is
// called. What has a name by then stays. Open ends the leases of a killed agent.
func (s *Store) Lease(ctx context.Context) (leased context.Context, release func(), err error) {
	return s.withLease(s.in(ctx), leasePull)
}

// withLease gives ctx a lease of its own that release deletes.
func (s *Store) withLease(ctx context.Context, kind string) (context.Context, func(), error) {
	lease, err := s.leases.Create(ctx, leases.WithRandomID(), leases.WithExpiration(maxPull), leases.WithLabel(labelLease, kind))
	if err != nil {
		return nil, nil, fmt.Errorf("create lease: %w", err)
	}
	release := func() {
		if err := s.leases.Delete(context.WithoutCancel(ctx), lease); err != nil && !errdefs.IsNotFound(err) {
			s.log.Error("lease not deleted: its content stays until it expires", "lease", lease.ID, "error", err)
		}
	}
	return leases.WithLease(ctx, lease.ID), release, nil
}

// fetchAndUnpack walks the image from its target down. Layers are fetched at
// the same time and unpacked in order as they arrive.
func (s *Store) fetchAndUnpack(ctx context.Context, j job, report func(Progress)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unpacker, err := unpack.NewUnpacker(ctx, s.content,
		unpack.WithUnpackPlatform(unpack.Platform{
			Platform:       s.platform,
			SnapshotterKey: s.cfg.Snapshotter,
			Snapshotter:    s.snap,
			Applier:        s.applier,
		}),
		unpack.WithFetchAllContent(), // a peer or a push may want every blob
		unpack.WithLimiter(semaphore.NewWeighted(parallelBlobs)),
		unpack.WithDuplicationSuppressor(&s.blobs))
	if err != nil {
		return err
	}
	fetch := newFetcher(s, j.sources, report)
	children := images.SetChildrenMappedLabels(s.content, images.ChildrenHandler(s.content), images.ChildGCLabels)
	children = images.LimitManifests(images.FilterPlatforms(children, s.platform), s.platform, 1)
	handler := images.Handlers(images.HandlerFunc(fetch.handle), fetch.counting(children))
	err = images.Dispatch(ctx, unpacker.Unpack(handler), nil, j.target)
	if err != nil {
		cancel() // the unpacker's own goroutines end before its lease does
	}
	if _, uerr := unpacker.Wait(); err == nil {
		err = uerr
	}
	return err
}
