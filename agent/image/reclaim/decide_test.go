package reclaim

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestToFree(t *testing.T) {
	policy := Policy{High: 85, Low: 80}
	tests := []struct {
		name   string
		policy Policy
		disk   Disk
		want   int64
	}{
		{"empty", policy, Disk{1000, 1000}, 0},
		{"below", policy, Disk{1000, 160}, 0},
		{"at the high watermark", policy, Disk{1000, 150}, 50},
		{"above", policy, Disk{1000, 10}, 190},
		{"full", policy, Disk{1000, 0}, 200},
		{"never", Policy{High: 100, Low: 80}, Disk{1000, 0}, 0},
		{"no disk", policy, Disk{}, 0},
	}
	for _, tt := range tests {
		if got := tt.policy.toFree(tt.disk); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestOrder(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	image := func(name string, arrived, used time.Duration, size int64) Image {
		img := Image{Digest: digest.FromString(name), Names: []string{name}, Size: size, Arrived: ago(arrived)}
		if used > 0 {
			img.Used = ago(used)
		}
		return img
	}
	kept := image("kept", 100*time.Hour, 0, 1)
	kept.Kept = true
	images := []Image{
		image("fresh", time.Minute, 0, 1),
		image("just asked for", 50*time.Hour, time.Minute, 1),
		kept,
		image("used an hour ago", 60*time.Hour, time.Hour, 1),
		image("never used", 30*time.Hour, 0, 1),
		image("used long ago", 90*time.Hour, 40*time.Hour, 1),
		image("as long, but larger", 90*time.Hour, 40*time.Hour, 2),
	}
	tests := []struct {
		name string
		got  []Image
		want []string
	}{
		{"for room", removable(images, now), []string{"as long, but larger", "used long ago", "never used", "used an hour ago"}},
		{"by age", Policy{MaxAge: 24 * time.Hour}.outdated(images, now), []string{"as long, but larger", "used long ago", "never used"}},
		{"no age", Policy{}.outdated(images, now), nil},
	}
	for _, tt := range tests {
		var names []string
		for _, img := range tt.got {
			names = append(names, img.Names...)
		}
		if !slices.Equal(names, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, names, tt.want)
		}
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		policy Policy
		want   []string // flags that are wrong, sorted
	}{
		{Policy{High: 85, Low: 80}, nil},
		{Policy{High: 100, Low: 0, MaxAge: time.Hour}, nil},
		{Policy{High: 80, Low: 80}, []string{FlagLow}},
		{Policy{High: 120, Low: -1, MaxAge: -1}, []string{FlagHigh, FlagLow, FlagMaxAge}},
	}
	for _, tt := range tests {
		var got []string
		tt.policy.Check(func(flag string, err error) {
			if err == nil {
				t.Errorf("%s is wrong without a reason", flag)
			}
			got = append(got, flag)
		})
		if slices.Sort(got); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", fmt.Sprint(tt.policy), got, tt.want)
		}
	}
}
