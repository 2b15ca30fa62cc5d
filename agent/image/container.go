package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// labelImage, on a container's lease, is the digest of the image it runs.
const labelImage = "lighter.dev/image"

// containerKey names both the lease and the snapshot of a container.
func containerKey(id string) string { return "container/" + id }

// Prepare gives a container its root file system on top of img and returns
// what to mount. A lease keeps image and file system until Remove, even when
// the image's name is gone. Called again it returns the same file system. A
// read-only one is a view: nothing can be written under it.
func (s *Store) Prepare(ctx context.Context, containerID string, img Image, readOnly bool) ([]mount.Mount, error) {
	ctx = s.in(ctx)
	key := containerKey(containerID)
	lease := leases.Lease{ID: key}
	err := s.inTx(ctx, func(ctx context.Context) error {
		_, err := s.leases.Create(ctx, leases.WithID(key),
			leases.WithLabel(labelLease, leaseContainer), leases.WithLabel(labelImage, img.Target.String()))
		if err != nil {
			if errdefs.IsAlreadyExists(err) {
				return nil
			}
			return err
		}
		return s.leases.AddResource(ctx, lease, leases.Resource{ID: img.Target.String(), Type: "content"})
	})
	if err != nil {
		return nil, fmt.Errorf("prepare file system of container %s: %w", containerID, err)
	}
	leased := leases.WithLease(ctx, key)
	mounts, err := s.makeSnapshot(leased, key, img.ChainID, readOnly)
	if errdefs.IsAlreadyExists(err) {
		mounts, err = s.snap.Mounts(leased, key)
	}
	if err != nil {
		err = fmt.Errorf("prepare file system of container %s from image %s: %w", containerID, img.Target, err)
		return nil, errors.Join(err, s.Remove(context.WithoutCancel(ctx), containerID))
	}
	return mounts, nil
}

func (s *Store) makeSnapshot(ctx context.Context, key string, parent digest.Digest, readOnly bool) ([]mount.Mount, error) {
	if readOnly {
		return s.snap.View(ctx, key, parent.String())
	}
	return s.snap.Prepare(ctx, key, parent.String())
}

// Remove takes a container's file system and lease away. It does nothing for a
// container that has none. The file system has to be unmounted before.
func (s *Store) Remove(ctx context.Context, containerID string) error {
	ctx = s.in(ctx)
	key := containerKey(containerID)
	var errs []error
	if err := s.snap.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		errs = append(errs, err)
	}
	if err := s.leases.Delete(ctx, leases.Lease{ID: key}); err != nil && !errdefs.IsNotFound(err) {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return fmt.Errorf("remove file system of container %s: %w", containerID, errors.Join(errs...))
	}
	return nil
}

// Containers are the IDs of all containers that have a file system here, so
// that the agent can remove those of pods that are no more.
func (s *Store) Containers(ctx context.Context) ([]string, error) {
	all, err := s.leases.List(s.in(ctx), leaseFilter(leaseContainer))
	if err != nil {
		return nil, fmt.Errorf("list container file systems: %w", err)
	}
	ids := make([]string, 0, len(all))
	for _, l := range all {
		ids = append(ids, l.ID[len(containerKey("")):])
	}
	return ids, nil
}

// usedDigests are the images that containers of this host run or ran, with the
// IDs of those containers.
func (s *Store) usedDigests(ctx context.Context) (map[digest.Digest][]string, error) {
	all, err := s.leases.List(ctx, leaseFilter(leaseContainer))
	if err != nil {
		return nil, err
	}
	used := map[digest.Digest][]string{}
	for _, l := range all {
		dgst := digest.Digest(l.Labels[labelImage])
		used[dgst] = append(used[dgst], l.ID[len(containerKey("")):])
	}
	return used, nil
}

func leaseFilter(kind string) string { return fmt.Sprintf("labels.%q==%s", labelLease, kind) }
