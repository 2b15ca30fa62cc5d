package reclaim

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// minAge spares images that have just come or been asked for: their container may be
// about to be made.
const minAge = 2 * time.Minute

// Policy says when images are removed.
type Policy struct {
	// High is the share of the disk, in percent, from which images are removed until
	// Low is reached. 100 never removes on that account.
	High, Low int
	// MaxAge, if not 0, removes images that nobody has used for so long.
	MaxAge time.Duration
}

// Check reports every wrong value at once, by the names of the flags.
func (p Policy) Check(wrong func(flag string, err error)) {
	for flag, percent := range map[string]int{FlagHigh: p.High, FlagLow: p.Low} {
		if percent < 0 || percent > 100 {
			wrong(flag, fmt.Errorf("%d is no percentage", percent))
		}
	}
	if p.Low >= p.High {
		wrong(FlagLow, fmt.Errorf("%d has to be less than --%s %d", p.Low, FlagHigh, p.High))
	}
	if p.MaxAge < 0 {
		wrong(FlagMaxAge, errors.New("a time is not negative"))
	}
}

// The names of the settings.
const (
	FlagHigh   = "image-gc-high"
	FlagLow    = "image-gc-low"
	FlagMaxAge = "image-gc-max-age"
)

// Disk is the file system that holds the images, in bytes. Free is what is left
// for processes without root's reserve.
type Disk struct{ Capacity, Free int64 }

// Percent is how full it is.
func (d Disk) Percent() int {
	if d.Capacity <= 0 {
		return 0
	}
	return int(100 - d.Free*100/d.Capacity)
}

// toFree is how many bytes have to be freed; 0 below the high watermark.
func (p Policy) toFree(d Disk) int64 {
	if p.High >= 100 || d.Percent() < p.High {
		return 0
	}
	return max(0, d.Capacity/100*int64(100-p.Low)-d.Free)
}

// Image is one version of an image on the host.
type Image struct {
	Digest digest.Digest
	Names  []string
	// Size is that of its blobs, in bytes.
	Size int64
	// Arrived is when it came, Used when it was used or asked for last (zero if never
	// since).
	Arrived, Used time.Time
	// Kept: it has to stay.
	Kept bool
}

func (i Image) lastUsed() time.Time {
	if i.Used.After(i.Arrived) {
		return i.Used
	}
	return i.Arrived
}

// removable are the images that may go, the one used least lately first; among
// those the larger first.
func removable(images []Image, now time.Time) []Image {
	out := slices.DeleteFunc(slices.Clone(images), func(i Image) bool { return i.Kept || now.Sub(i.lastUsed()) < minAge })
	slices.SortStableFunc(out, func(a, b Image) int {
		return cmp.Or(a.lastUsed().Compare(b.lastUsed()), cmp.Compare(b.Size, a.Size))
	})
	return out
}

// outdated are the removable images that are older than MaxAge.
func (p Policy) outdated(images []Image, now time.Time) []Image {
	if p.MaxAge == 0 {
		return nil
	}
	return slices.DeleteFunc(removable(images, now), func(i Image) bool { return now.Sub(i.lastUsed()) < p.MaxAge })
}
