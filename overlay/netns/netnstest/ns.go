package netnstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"lighter.dev/lighter/overlay/netns"
)

// RequireRoot skips the test, with the reason, where it cannot touch the kernel
// or a program is missing.
func RequireRoot(t testing.TB, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs the program %s: %v", p, err)
		}
	}
}

// NewNS makes a namespace, pinned by a bind mount in the test's own folder, and
// removes it when the test ends. It returns its path.
func NewNS(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "net")
	f, err := os.Create(path) //nolint:gosec // a fresh temporary folder
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread dies with its namespace.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, "")
	}()
	if err := <-done; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}

// OpenNS opens a namespace for the length of the test.
func OpenNS(t testing.TB, path string) *netns.Real {
	t.Helper()
	k, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// RemovableNS is NewNS with a function that ends the namespace before the test
// does, provided that no process or handle is in it.
func RemovableNS(t *testing.T) (path string, remove func()) {
	t.Helper()
	path = NewNS(t)
	return path, func() { _ = unix.Unmount(path, unix.MNT_DETACH) }
}
