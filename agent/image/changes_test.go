package image

import (
	"fmt"
	"strings"
	"testing"

	"lighter.dev/lighter/api/agentapi"
)

func TestWithoutMountPoints(t *testing.T) {
	for _, tt := range []struct{ all, points, want string }{
		{"C /etc, A /etc/hosts", "/etc/hosts", ""},
		{"C /etc, A /etc/hosts, A /etc/own", "/etc/hosts", "C /etc, A /etc/own"},
		{"C /etc, C /etc/own", "", "C /etc, C /etc/own"},
		{"A /etc, A /etc/hosts, A /etc/deep, A /etc/deep/own", "/etc/hosts", "A /etc, A /etc/deep, A /etc/deep/own"},
		{"A /data, A /data/volume, A /data/volume/x", "/data/volume", ""},
		{"A /dev, A /dev/pts, A /proc, A /sys, C /devel", "", "C /devel"},
		{"A /a/deep/file, D /b/gone", "", "C /a, C /a/deep, A /a/deep/file, C /b, D /b/gone"},
		{"A /etcetera, D /etc/hosts, C /etc", "/etc/hosts", "C /etc, D /etc/hosts, A /etcetera"},
	} {
		var all []agentapi.Change
		for _, text := range strings.Split(tt.all, ", ") {
			kind, path, _ := strings.Cut(text, " ")
			all = append(all, agentapi.Change{Kind: kind, Path: path})
		}
		var got []string
		for _, c := range withoutMountPoints(all, strings.Fields(tt.points)) {
			got = append(got, fmt.Sprint(c.Kind, " ", c.Path))
		}
		if text := strings.Join(got, ", "); text != tt.want {
			t.Errorf("%s without %q: %s, want %s", tt.all, tt.points, text, tt.want)
		}
	}
}
