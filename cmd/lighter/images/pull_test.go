package images

import (
	"strings"
	"testing"
)

func TestPull(t *testing.T) {
	has := map[string]string{nginx: digestOf('a')}
	tests := []struct {
		name    string
		agents  map[string]*agent
		options PullOptions
		out     string
		shows   []string
		err     string
	}{
		{"all hosts", map[string]*agent{"host-1": {registry: has}, "host-2": {registry: has}}, PullOptions{},
			"Using default tag: latest\nDigest: " + digestOf('a') + "\n" + nginx + "\n", []string{"host-1: Downloading", "host-1: Pull complete\n", "host-2: Pull complete\n"}, ""},
		{"one host shows its blobs", map[string]*agent{"host-1": {registry: has}, "host-2": {}}, PullOptions{Node: "host-1"},
			"Using default tag: latest\nDigest: " + digestOf('a') + "\n" + nginx + "\n", []string{"host-1: Pulling from library/nginx\n", "aaaaaaaaaaaa: Pull complete\n"}, ""},
		{"quiet", map[string]*agent{"host-1": {registry: has}}, PullOptions{Quiet: true}, nginx + "\n", nil, ""},
		{"one of two fails", map[string]*agent{"host-1": {registry: has}, "host-2": {}}, PullOptions{Quiet: true}, "", nil, "pull nginx: host-2: the registry has no such image"},
		{"all fail alike", map[string]*agent{"host-1": {}, "host-2": {}}, PullOptions{Quiet: true}, "", nil, "pull nginx: the registry has no such image"},
		{"no such host", map[string]*agent{"host-1": {}}, PullOptions{Node: "host-7", Quiet: true}, "", nil, "there is no host host-7: there are host-1"},
		{"no host", nil, PullOptions{Quiet: true}, "", nil, "no host is Ready"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := newDesk(t, test.agents)
			err := d.Pull(t.Context(), "nginx", test.options)
			if (err == nil) != (test.err == "") || (err != nil && err.Error() != test.err) {
				t.Errorf("%v, want %q", err, test.err)
			}
			if test.err == "" && d.out.String() != test.out {
				t.Errorf("prints %q, want %q", d.out.String(), test.out)
			}
			wants(t, "progress", d.err.String(), test.shows...)
			if strings.Contains(d.err.String(), "\x1b") {
				t.Errorf("control sequences where there is no terminal: %q", d.err.String())
			}
		})
	}
}
