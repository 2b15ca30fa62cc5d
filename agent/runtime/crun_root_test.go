package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lighter.dev/lighter/agent/cgroup"
)

// crunViewEnv marks a test process that runs in crun's view.
const crunViewEnv = "LIGHTER_TEST_CRUN_VIEW"

// inCrunView makes sure that crun can work. crun 1.8 refuses hybrid cgroups that
// have controllers in their v2 hierarchy; there the test is run again by a
// process in a mount namespace that has that hierarchy unmounted; ranThere says
// that this has been done, and well.
func inCrunView(t testing.TB) (ranThere bool) {
	t.Helper()
	needRoot(t, "crun", "conmon", "busybox")
	tree, err := cgroup.New("/none")
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.V2Controllers()) == 0 || tree.Mode() != cgroup.Hybrid {
		return false
	}
	name := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
	args := []string{"-test.run=" + name, "-test.v"}
	if _, ok := t.(*testing.B); ok {
		args = []string{"-test.run=^$", "-test.bench=" + name, "-test.v"}
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), crunViewEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	t.Logf("in a mount namespace without /sys/fs/cgroup/unified:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	return true
}

func TestMain(m *testing.M) {
	if os.Getenv(crunViewEnv) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			panic(err)
		}
		if err := showOnlyV1(); err != nil {
			panic(err)
		}
		_ = os.Unsetenv(crunViewEnv) // done, for our children too
	}
	if job := os.Getenv(firstAgentEnv); job != "" {
		fmt.Fprintln(os.Stderr, playFirstAgent(job))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// showOnlyV1 mounts a new /sys/fs/cgroup with the v1 hierarchies alone.
func showOnlyV1() error {
	const top = "/sys/fs/cgroup"
	entries, err := os.ReadDir(top)
	if err != nil {
		return err
	}
	fds := map[string]int{}
	for _, entry := range entries {
		if entry.Name() == "unified" || !entry.IsDir() {
			continue
		}
		if fds[entry.Name()], err = unix.Open(filepath.Join(top, entry.Name()), unix.O_PATH, 0); err != nil {
			return err
		}
	}
	if err := unix.Unmount(filepath.Join(top, "unified"), unix.MNT_DETACH); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", top, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for name, fd := range fds {
		path := filepath.Join(top, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), path, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// TestCompiledFilterRoot: a filter that was compiled for one container confines
// the next one in the same way.
func TestCompiledFilterRoot(t *testing.T) {
	if inCrunView(t) {
		return
	}
	h := newHost(t, "crun")
	if !h.engine.oci.filters {
		t.Skip("this crun takes no compiled filters")
	}
	// The default profile lets nobody make a user namespace without CAP_SYS_ADMIN.
	script := "unshare -U true 2>&1 || echo refused; grep -E '^Seccomp(_filters)?:' /proc/self/status"
	compiled := inside(h, nil, script)
	if !strings.Contains(compiled, "refused") || !strings.Contains(compiled, "Seccomp:\t2") {
		t.Fatalf("not confined: %q", compiled)
	}
	if known := len(h.engine.filters.bpf); known != 1 {
		t.Fatalf("%d filters are known after one container, want 1", known)
	}
	if reused := inside(h, nil, script); reused != compiled {
		t.Errorf("with the filter that is known: %q, want %q", reused, compiled)
	}
	configs, err := filepath.Glob(filepath.Join(h.cfg.RunDir, "bundles", "*", "config.json"))
	if err != nil || len(configs) != 2 {
		t.Fatalf("bundles: %v, %v", configs, err)
	}
	given := 0
	for _, config := range configs {
		raw, err := os.ReadFile(config)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), filterAnnotation) {
			given++
		}
	}
	if given != 1 {
		t.Errorf("%d of two containers were given the filter, want the second alone", given)
	}
}
