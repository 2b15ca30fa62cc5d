package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/continuity/fs"
	"github.com/google/uuid"

	"lighter.dev/lighter/api/agentapi"
)

// Changes says in what a container's file system differs from its image, in the
// order of paths. Of mountPoints the container's mounts are meant: the runtime
// makes what they are mounted on, which is nobody's change.
func (s *Store) Changes(ctx context.Context, containerID string, mountPoints []string) ([]agentapi.Change, error) {
	ctx, release, err := s.withLease(s.in(ctx), leasePull)
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", containerID, err)
	}
	defer release()
	var found []agentapi.Change
	note := func(kind fs.ChangeKind, path string, _ os.FileInfo, err error) error {
		if letter, ok := letters[kind]; ok && err == nil {
			found = append(found, agentapi.Change{Kind: letter, Path: path})
		}
		return err
	}
	err = s.beside(ctx, containerKey(containerID), func(before, after string) error { return fs.Changes(ctx, before, after, note) })
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", containerID, err)
	}
	return withoutMountPoints(found, mountPoints), nil
}

// beside mounts a snapshot and its parent for as long as do runs.
func (s *Store) beside(ctx context.Context, key string, do func(before, after string) error) (err error) {
	info, err := s.snap.Stat(ctx, key)
	if err != nil {
		return err
	}
	upper, err := s.snap.Mounts(ctx, key)
	if err != nil {
		return err
	}
	view := "compare/" + uuid.NewString()
	lower, err := s.snap.View(ctx, view, info.Parent)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.snap.Remove(context.WithoutCancel(ctx), view)) }()
	// Read-only: the container may have the same mounted.
	return mount.WithTempMount(ctx, lower, func(before string) error {
		return mount.WithReadonlyTempMount(ctx, upper, func(after string) error { return do(before, after) })
	})
}

var letters = map[fs.ChangeKind]string{
	fs.ChangeKindAdd: agentapi.Added, fs.ChangeKindModify: agentapi.Changed, fs.ChangeKindDelete: agentapi.Deleted,
}

// madeByRuntime are mount points of every container.
var madeByRuntime = []string{"/dev", "/proc", "/sys", "/run/secrets"}

// mountPoints are paths in a container at which something is mounted.
type mountPoints []string

// hide: what is at this path in the file system cannot be seen in the container.
func (m mountPoints) hide(name string) bool {
	return slices.ContainsFunc(m, func(point string) bool { return name == point || strings.HasPrefix(name, point+"/") })
}

// lieBelow: the folder leads to one of them.
func (m mountPoints) lieBelow(name string) bool {
	return slices.ContainsFunc(m, func(point string) bool { return strings.HasPrefix(point, name+"/") })
}

// withoutMountPoints drops the mount points that were added, and the folders of
// which nothing else is said.
func withoutMountPoints(all []agentapi.Change, points []string) []agentapi.Change {
	mounts := mountPoints(slices.Concat(points, madeByRuntime))
	byPath := func(a, b agentapi.Change) int { return strings.Compare(a.Path, b.Path) }
	slices.SortFunc(all, byPath)
	// Backwards, what is in a folder is seen before the folder.
	kinds := map[string]string{}
	for _, c := range slices.Backward(all) {
		_, inside := kinds[c.Path]
		if c.Kind != agentapi.Deleted && (mounts.hide(c.Path) || mounts.lieBelow(c.Path) && !inside) {
			continue
		}
		kinds[c.Path] = c.Kind
		// A folder in which something changed has changed, as Docker sees it.
		for dir := path.Dir(c.Path); dir != "/" && kinds[dir] == ""; dir = path.Dir(dir) {
			kinds[dir] = agentapi.Changed
		}
	}
	var out []agentapi.Change
	for name, kind := range kinds {
		out = append(out, agentapi.Change{Kind: kind, Path: name})
	}
	slices.SortFunc(out, byPath)
	return out
}
