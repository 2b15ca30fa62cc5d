package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"

	"lighter.dev/lighter/api/agentapi"
)

// RemoveImage takes a name away from this host, or with a digest (or the beginning
// of one) all names of an image, by the rules of Docker's "rmi", see refuseRemoval.
// What Image objects declare stays: it goes with its object.
func (s *Store) RemoveImage(ctx context.Context, ref string, force bool) (agentapi.Removed, error) {
	ctx = s.in(ctx)
	name, rec, err := s.lookup(ctx, "", ref)
	if err != nil {
		return agentapi.Removed{}, s.whoseBuild(ctx, name, err)
	}
	all, err := s.List(ctx)
	if err != nil {
		return agentapi.Removed{}, err
	}
	var recs []images.Image
	var users []User
	if i := slices.IndexFunc(all, func(sum Summary) bool { return sum.Digest == rec.Target.Digest }); i >= 0 {
		recs = slices.DeleteFunc(all[i].recs, func(r images.Image) bool { return !visible(r, "") })
		users = s.cfg.Users(ctx, all[i].Containers)
	} else {
		recs = []images.Image{rec} // not complete
	}
	going := goingWith(recs, name)
	if err := refuseRemoval(ref, name, recs, going, users, force); err != nil {
		return agentapi.Removed{}, err
	}
	return s.reclaim(ctx, func() ([]images.Image, error) { return going, s.deleteRecords(ctx, going) })
}

// goingWith are the records that go when a name is removed: those of the name, or all
// if there is no name, or if none but exact versions would be left.
func goingWith(recs []images.Image, name string) []images.Image {
	of := func(r images.Image) bool {
		base, _, _ := splitCanonical(r.Name)
		return name == "" || base == name || !tagged(name) && repository(base) == name
	}
	for _, r := range recs {
		if _, _, exact := splitCanonical(r.Name); !exact && !of(r) {
			return slices.DeleteFunc(slices.Clone(recs), func(r images.Image) bool { return !of(r) })
		}
	}
	return recs
}

// refuseRemoval is Docker's rule. A name beside others may always go. The last name
// of an image that a container uses may go by force only; what the container needs
// stays until the container goes. By its digest, an image that is in several
// repositories goes by force only, and one that runs not at all. It is pure.
func refuseRemoval(ref, name string, recs, going []images.Image, users []User, force bool) error {
	if len(going) < len(recs) {
		return nil
	}
	if name == "" {
		repos := map[string]bool{}
		for _, r := range recs {
			repos[repository(r.Name)] = true
		}
		if len(repos) > 1 && !force {
			return classify(errdefs.ErrConflict, "image %s has names in %d repositories: remove them one by one, or force it", ref, len(repos))
		}
	}
	var running, ended []string
	for _, u := range users {
		if u.Running {
			running = append(running, u.String())
		} else {
			ended = append(ended, u.String())
		}
	}
	slices.Sort(running)
	slices.Sort(ended)
	switch {
	case len(running) > 0 && name == "":
		return classify(errdefs.ErrConflict, "image %s is run by %s: stop them first", ref, strings.Join(running, ", "))
	case len(running) > 0 && !force:
		return classify(errdefs.ErrConflict, "image %s is run by %s: stop them first, or force it to take the name away only", ref, strings.Join(running, ", "))
	case len(ended) > 0 && !force:
		return classify(errdefs.ErrConflict, "image %s is used by %s, which has ended: remove that first, or force it", ref, strings.Join(ended, ", "))
	}
	return nil
}

// whoseBuild says why a name that is here cannot be removed from the host.
func (s *Store) whoseBuild(ctx context.Context, name string, err error) error {
	recs, lerr := s.images.List(ctx)
	if lerr != nil || !errdefs.IsNotFound(err) {
		return errors.Join(err, lerr)
	}
	for _, rec := range recs {
		if _, base, built := splitBuilt(rec.Name); built && base == name {
			return classify(errdefs.ErrConflict, "image %s was not pulled to this host: it is the content of an Image object, delete that (lighter delete image)", name)
		}
	}
	return err
}

func (s *Store) deleteRecords(ctx context.Context, recs []images.Image) error {
	defer s.changed.notify()
	return s.inTx(ctx, func(ctx context.Context) error {
		for _, rec := range recs {
			if err := s.images.Delete(ctx, rec.Name); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("remove image %s: %w", rec.Name, err)
			}
		}
		return nil
	})
}

// PruneImages removes what no container of this host uses: images that only an old
// version's record keeps, or with all every one, if they came longer ago than until.
// What Image objects declare stays.
func (s *Store) PruneImages(ctx context.Context, all bool, until time.Duration) (agentapi.Removed, error) {
	ctx = s.in(ctx)
	list, err := s.List(ctx)
	if err != nil {
		return agentapi.Removed{}, err
	}
	before := time.Now().Add(-until)
	return s.reclaim(ctx, func() ([]images.Image, error) {
		var gone []images.Image
		for i := range list {
			sum := &list[i]
			if sum.InUse() || sum.CreatedAt.After(before) || s.declared(ctx, sum) || !all && !sum.dangling() {
				continue
			}
			gone = append(gone, sum.recs...)
			s.log.Info("image pruned", "images", sum.Names, "bytes", sum.Size)
		}
		return gone, s.deleteRecords(ctx, gone)
	})
}

// dangling: no name leads to it any more.
func (sum *Summary) dangling() bool {
	return !slices.ContainsFunc(sum.recs, func(r images.Image) bool {
		_, _, exact := splitCanonical(r.Name)
		return !exact
	})
}

// declared: an Image object keeps it, as its current content or as an older one
// that a roll-back may want.
func (s *Store) declared(ctx context.Context, sum *Summary) bool {
	return slices.ContainsFunc(sum.recs, func(r images.Image) bool {
		namespace, base, built := splitBuilt(r.Name)
		if !built {
			return false
		}
		name, _, _ := splitCanonical(base)
		_, declared := s.lookupBuild(ctx, namespace, name)
		return declared
	})
}

// reclaim runs what deletes records, collects garbage, and tells what went.
func (s *Store) reclaim(ctx context.Context, remove func() ([]images.Image, error)) (agentapi.Removed, error) {
	before, err := s.diskUse(ctx)
	if err != nil {
		return agentapi.Removed{}, err
	}
	gone, err := remove()
	if err != nil {
		return agentapi.Removed{}, err
	}
	if err := s.GC(ctx); err != nil {
		return agentapi.Removed{}, err
	}
	after, err := s.diskUse(ctx)
	out := agentapi.Removed{Reclaimed: max(before-after, 0)}
	for _, rec := range gone {
		_, name, _ := splitBuilt(rec.Name)
		if !slices.Contains(out.Untagged, name) {
			out.Untagged = append(out.Untagged, name)
		}
		dgst := rec.Target.Digest
		if _, ierr := s.content.Info(ctx, dgst); errdefs.IsNotFound(ierr) && !slices.Contains(out.Deleted, dgst.String()) {
			out.Deleted = append(out.Deleted, dgst.String())
		}
	}
	return out, err
}
