package reclaim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// glance is how often the disk is looked at: a pull fills it fast.
	glance = 15 * time.Second
	// round is how often all images are.
	round = 5 * time.Minute
)

// The reasons of Events on the Node, the kubelet's.
const (
	reasonGCFailed   = "ImageGCFailed"
	reasonFreeFailed = "FreeDiskSpaceFailed"
)

// World is what a Reclaimer sees and does.
type World interface {
	// Disk measures the file system that holds the images.
	Disk() (Disk, error)
	// Used are the digests that containers of the host use now, Asked when images
	// were last asked for.
	Used(ctx context.Context) (map[digest.Digest]bool, error)
	Asked() map[digest.Digest]time.Time
	// Images are all images, but for Used.
	Images(ctx context.Context) ([]Image, error)
	// Remove removes an image, unless a container has come to use it, and frees
	// what only it took.
	Remove(ctx context.Context, dgst digest.Digest) error
	// TrimCache removes from the build cache what its own rules allow.
	TrimCache(ctx context.Context) error
	// Warn makes an Event on the host's Node.
	Warn(reason, message string)
}

// Reclaimer keeps the disk of images from getting full. Make it with New.
type Reclaimer struct {
	policy Policy
	world  World
	log    *slog.Logger
	usage  *usage
	// failed: the last round failed; once is no reason for an Event yet.
	failed bool
}

// New makes a Reclaimer that keeps what it knows in the file path.
func New(policy Policy, path string, world World, log *slog.Logger) (*Reclaimer, error) {
	usage, err := openUsage(path)
	if err != nil {
		return nil, err
	}
	return &Reclaimer{policy: policy, world: world, log: log, usage: usage}, nil
}

// Run works until ctx ends.
func (r *Reclaimer) Run(ctx context.Context) error {
	ticker := time.NewTicker(glance)
	defer ticker.Stop()
	var last time.Time
	for {
		now := time.Now()
		disk, err := r.look(ctx, now)
		full := err == nil && r.policy.toFree(disk) > 0
		// A disk that nothing can be removed from is not searched at each glance.
		if now.Sub(last) >= round || full && now.Sub(last) >= 4*glance {
			last = now
			r.report(ctx, errors.Join(err, r.turn(ctx, now)))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// look measures the disk, and notes which images are in use.
func (r *Reclaimer) look(ctx context.Context, now time.Time) (Disk, error) {
	used, err := r.world.Used(ctx)
	for dgst := range used {
		r.usage.note(dgst, now)
	}
	disk, diskErr := r.world.Disk()
	return disk, errors.Join(err, diskErr)
}

// report tells of a failure, as an Event only when it lasts.
func (r *Reclaimer) report(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		r.failed = false
		return
	}
	r.log.Warn("images could not be cleared away", "error", err)
	if r.failed {
		r.world.Warn(reasonGCFailed, err.Error())
	}
	r.failed = true
}

// turn removes what is out of date, then what the disk's state demands.
func (r *Reclaimer) turn(ctx context.Context, now time.Time) error {
	images, err := r.images(ctx, now)
	if err != nil {
		return err
	}
	var errs []error
	gone := map[digest.Digest]bool{}
	for _, img := range r.policy.outdated(images, now) {
		errs = append(errs, r.remove(ctx, img, "nobody has used it for "+now.Sub(img.lastUsed()).Round(time.Second).String()))
		gone[img.Digest] = true
	}
	disk, err := r.world.Disk()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if wanted := r.policy.toFree(disk); wanted > 0 {
		errs = append(errs, r.free(ctx, images, gone, now, disk, wanted))
	}
	return errors.Join(errs...)
}

// images are all of them, with what is known of their use.
func (r *Reclaimer) images(ctx context.Context, now time.Time) ([]Image, error) {
	used, err := r.world.Used(ctx)
	if err != nil {
		return nil, err
	}
	images, err := r.world.Images(ctx)
	if err != nil {
		return nil, err
	}
	for dgst, at := range r.world.Asked() {
		r.usage.note(dgst, at)
	}
	for i := range images {
		img := &images[i]
		if used[img.Digest] {
			img.Kept = true
			r.usage.note(img.Digest, now)
		}
		img.Used = r.usage.at[img.Digest]
	}
	r.usage.keep(images)
	return images, r.usage.save()
}

// free makes room on a disk that is too full: of the build cache first, which can be
// made again from what is here, then of images, until there is enough. What one
// image frees is measured: layers are shared.
func (r *Reclaimer) free(ctx context.Context, images []Image, gone map[digest.Digest]bool, now time.Time, before Disk, wanted int64) error {
	r.log.Info("disk of images is too full", "percent", before.Percent(), "high", r.policy.High, "low", r.policy.Low, "bytes to free", wanted)
	errs := []error{r.world.TrimCache(ctx)}
	enough := func() (bool, error) {
		disk, err := r.world.Disk()
		return disk.Free-before.Free >= wanted, err
	}
	for _, img := range removable(images, now) {
		done, err := enough()
		if err != nil || done {
			return errors.Join(append(errs, err)...)
		}
		if !gone[img.Digest] {
			errs = append(errs, r.remove(ctx, img, "the disk is full"))
		}
	}
	after, err := r.world.Disk()
	errs = append(errs, err)
	if freed := after.Free - before.Free; err == nil && freed < wanted {
		r.world.Warn(reasonFreeFailed, fmt.Sprintf("Failed to garbage collect required amount of images. Attempted to free %d bytes, but only %d bytes could be freed: the disk is %d%% full, the rest of it is in use.", wanted, freed, after.Percent()))
	}
	return errors.Join(errs...)
}

func (r *Reclaimer) remove(ctx context.Context, img Image, why string) error {
	if err := r.world.Remove(ctx, img.Digest); err != nil {
		return fmt.Errorf("remove image %s: %w", img.Digest, err)
	}
	r.log.Info("image removed", "names", img.Names, "digest", img.Digest, "bytes", img.Size, "why", why)
	return nil
}
