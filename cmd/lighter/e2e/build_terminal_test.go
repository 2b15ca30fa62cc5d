package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// TestBuildOnTerminal: BuildKit's own display, with the step that runs.
func TestBuildOnTerminal(t *testing.T) {
	t.Parallel()
	d := dock{t, namespace(t)}
	dir := source(t, map[string]string{"Dockerfile": busyboxDockerfile + "RUN echo on the screen\n"})
	s := d.terminal("build", "-t", "shown", dir)
	s.types("", "shown:latest built: sha256:")
	s.ends(0)
	contains(t, "the terminal", s.shown(), "[+] Building", "\x1b[", "FINISHED", "RUN echo on the screen")
}

// TestBuildCancelled: Ctrl-C ends the step on its host, and the Image says so; the
// same command succeeds afterwards.
func TestBuildCancelled(t *testing.T) {
	t.Parallel()
	d := dock{t, namespace(t)}
	// No other process of this machine sleeps as long.
	naps := fmt.Sprint(100_000_000 + os.Getpid())
	dir := source(t, map[string]string{"Dockerfile": busyboxDockerfile + "COPY naps /\nRUN echo now; test ! -s /naps || sleep $(cat /naps)\n", "naps": naps})
	s := d.terminal("build", "--progress", "plain", "-t", "slow", dir)
	s.types("", " now\r\n")
	eventually(t, 30*time.Second, "the step runs", func() error { return wantNaps(naps, 1) })
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	s.ends(130)
	eventually(t, time.Minute, "the step ends", func() error { return wantNaps(naps, 0) })
	eventually(t, time.Minute, "the Image says so", func() error {
		image, err := imagesOf(t, d.ns).Get(t.Context(), "slow", metav1.GetOptions{})
		if err != nil {
			return err
		}
		built := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ImageBuilt)
		if built == nil || built.Reason != v1alpha1.ReasonBuildCancelled || meta.IsStatusConditionTrue(image.Status.Conditions, v1alpha1.ImageBuilding) {
			return fmt.Errorf("%+v", image.Status.Conditions)
		}
		return nil
	})
	if err := os.WriteFile(filepath.Join(dir, "naps"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	contains(t, "the next build", d.do("build", "-t", "slow", dir), "slow:latest built")
}

// wantNaps counts the processes of all hosts that sleep for so long.
func wantNaps(seconds string, want int) error {
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	count := 0
	for _, path := range processes {
		if line, err := os.ReadFile(path); err == nil && string(line) == "sleep\x00"+seconds+"\x00" {
			count++
		}
	}
	if count != want {
		return fmt.Errorf("%d processes sleep, want %d", count, want)
	}
	return nil
}
