package netns_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"lighter.dev/lighter/overlay/netns"
	"lighter.dev/lighter/overlay/netns/netnstest"
)

func TestRealKernel(t *testing.T) {
	netnstest.RequireRoot(t)
	netnstest.Suite(t, func(t *testing.T) netns.Kernel { return netnstest.OpenNS(t, netnstest.NewNS(t)) })
}

func TestOpenWhatIsNoNamespace(t *testing.T) {
	netnstest.RequireRoot(t)
	file := filepath.Join(t.TempDir(), "gone")
	if _, err := netns.Open(file); !errors.Is(err, netns.ErrNotFound) {
		t.Fatal(err)
	}
	// What is left of a bind mount after a reboot: an empty file.
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := netns.Open(file); !errors.Is(err, netns.ErrNotFound) {
		t.Fatal(err)
	}
}
