package image

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
)

func TestRefuseRemoval(t *testing.T) {
	const one, two, other = "docker.io/library/a:1", "docker.io/library/a:2", "reg.example/b:1"
	exact := one + "@sha256:0"
	running, ended := User{ID: "c", Pod: "team/web", Running: true}, User{ID: "d", Pod: "team/old"}
	tests := []struct {
		what  string
		recs  []string
		name  string // "" is by digest
		users []User
		force bool
		going int
		text  string // of the refusal
	}{
		{"a name beside another", []string{one, two}, one, []User{running}, false, 1, ""},
		{"its exact version goes along", []string{one, exact, two}, one, nil, false, 2, ""},
		{"the last name", []string{one, exact}, one, nil, false, 2, ""},
		{"the last name of what runs", []string{one}, one, []User{running}, false, 1, "run by pod team/web: stop them first, or force"},
		{"the same by force", []string{one}, one, []User{running}, true, 1, ""},
		{"the last name of what ended", []string{one}, one, []User{ended}, false, 1, "used by pod team/old"},
		{"the same by force", []string{one}, one, []User{ended}, true, 1, ""},
		{"a container nobody knows", []string{one}, one, []User{{ID: "x", Running: true}}, false, 1, "container x"},
		{"by digest, two names of one repository", []string{one, two}, "", nil, false, 2, ""},
		{"by digest, two repositories", []string{one, other}, "", nil, false, 2, "names in 2 repositories"},
		{"the same by force", []string{one, other}, "", nil, true, 2, ""},
		{"by digest, what runs, even by force", []string{one}, "", []User{running}, true, 1, "stop them first"},
		{"name@digest takes its repository's names", []string{one, two, other}, "docker.io/library/a", nil, false, 2, ""},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			var recs []images.Image
			for _, name := range tt.recs {
				recs = append(recs, images.Image{Name: name})
			}
			going := goingWith(recs, tt.name)
			err := refuseRemoval("a", tt.name, recs, going, tt.users, tt.force)
			if len(going) != tt.going || (err == nil) != (tt.text == "") {
				t.Fatalf("%d records go, %v", len(going), err)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.text) || !errdefs.IsConflict(err)) {
				t.Errorf("error: %v", err)
			}
		})
	}
}
