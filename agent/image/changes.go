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
	found, err := s.compare(ctx, containerKey(containerID))
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", containerID, err)
	}
	return withoutMountPoints(found, mountPoints), nil
}

// compare walks a snapshot beside its parent.
func (s *Store) compare(ctx context.Context, key string) (found []agentapi.Change, err error) {
	info, err := s.snap.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	upper, err := s.snap.Mounts(ctx, key)
	if err != nil {
		return nil, err
	}
	view := "compare/" + uuid.NewString()
	lower, err := s.snap.View(ctx, view, info.Parent)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.snap.Remove(context.WithoutCancel(ctx), view)) }()
	note := func(kind fs.ChangeKind, path string, _ os.FileInfo, err error) error {
		if letter, ok := letters[kind]; ok && err == nil {
			found = append(found, agentapi.Change{Kind: letter, Path: path})
		}
		return err
	}
	// Read-only: the container may have the same mounted.
	err = mount.WithTempMount(ctx, lower, func(before string) error {
		return mount.WithReadonlyTempMount(ctx, upper, func(after string) error {
			return fs.Changes(ctx, before, after, note)
		})
	})
	return found, err
}

var letters = map[fs.ChangeKind]string{
	fs.ChangeKindAdd: agentapi.Added, fs.ChangeKindModify: agentapi.Changed, fs.ChangeKindDelete: agentapi.Deleted,
}

// madeByRuntime are mount points of every container.
var madeByRuntime = []string{"/dev", "/proc", "/sys", "/run/secrets"}

// withoutMountPoints drops the mount points that were added, and the folders of
// which nothing else is said.
func withoutMountPoints(all []agentapi.Change, points []string) []agentapi.Change {
	points = slices.Concat(points, madeByRuntime)
	mounted := func(name string) bool {
		return slices.ContainsFunc(points, func(point string) bool { return name == point || strings.HasPrefix(name, point+"/") })
	}
	above := func(name string) bool {
		return slices.ContainsFunc(points, func(point string) bool { return strings.HasPrefix(point, name+"/") })
	}
	byPath := func(a, b agentapi.Change) int { return strings.Compare(a.Path, b.Path) }
	slices.SortFunc(all, byPath)
	// Backwards, what is in a folder is seen before the folder.
	kinds := map[string]string{}
	for _, c := range slices.Backward(all) {
		_, inside := kinds[c.Path]
		if c.Kind != agentapi.Deleted && (mounted(c.Path) || above(c.Path) && !inside) {
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
