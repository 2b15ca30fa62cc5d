package runtime

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func ptr[T any](v T) *T { return &v }

// runtimes runs a test with each OCI runtime, crun in a view in which it works.
func runtimes(t *testing.T, test func(t *testing.T, h *host)) {
	t.Run("runc", func(t *testing.T) { test(t, newHost(t, "runc")) })
	t.Run("crun", func(t *testing.T) {
		if !inCrunView(t) {
			test(t, newHost(t, "crun"))
		}
	})
}

func TestRunToTheEnd(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		spec := h.spec("sh", "-c", "echo hello; echo oops >&2; echo last words >/dev/termination-log; exit 7")
		st, out := h.run(spec)
		if st.ExitCode != 7 || st.OOMKilled {
			t.Errorf("exit code %d, OOM %v; want 7, false", st.ExitCode, st.OOMKilled)
		}
		if !strings.Contains(out, "hello\n") || !strings.Contains(out, "oops\n") {
			t.Errorf("log %q", out)
		}
		if st.Message != "last words\n" {
			t.Errorf("termination message %q", st.Message)
		}
		if st.StartedAt.IsZero() || st.FinishedAt.Before(st.StartedAt.Add(-time.Second)) {
			t.Errorf("started %v, finished %v", st.StartedAt, st.FinishedAt)
		}
		if err := h.engine.Delete(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
		if err := h.engine.Delete(t.Context(), spec.ID); err != nil {
			t.Errorf("a second delete: %v", err)
		}
		if _, err := h.engine.Status(t.Context(), spec.ID); !errdefs.IsNotFound(err) {
			t.Errorf("status after delete: %v", err)
		}
		if _, err := os.Stat(spec.LogPath); err != nil {
			t.Errorf("the log has to outlive the container: %v", err)
		}
	})
}

// inside runs a shell script as the container and returns its output.
func inside(h *host, change func(*ContainerSpec), script string) string {
	h.t.Helper()
	spec := h.spec("sh", "-c", script)
	if change != nil {
		change(&spec)
	}
	st, out := h.run(spec)
	if st.ExitCode != 0 {
		h.t.Errorf("exit code %d of %q: %s", st.ExitCode, script, out)
	}
	return out
}

func TestEnvironment(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		out := inside(h, func(s *ContainerSpec) { s.Container.WorkingDir = "/data" },
			"echo $FROM_IMAGE $BOTH $HOSTNAME $(hostname) $(pwd) $(cat seed.txt)")
		if out != "1 pod box box /data from the image\n" {
			t.Errorf("got %q", out)
		}
	})
}

func TestUsers(t *testing.T) {
	h := newHost(t, "runc")
	for name, tc := range map[string]struct {
		image  string
		groups []string
		pod    corev1.PodSecurityContext
		own    corev1.SecurityContext
		want   string
		refuse string
	}{
		"root by default":     {want: "uid=0(root) gid=0(root) groups=0(root)"},
		"named in the image":  {image: "web", want: "uid=101(web) gid=102(web) groups=102(web),103(extra)"},
		"name and group":      {image: "web:extra", want: "uid=101(web) gid=103(extra) groups=103(extra)"},
		"further groups":      {image: "5:6", groups: []string{"extra", "77"}, want: "uid=5 gid=6 groups=6,77,103(extra)"},
		"user and group":      {own: corev1.SecurityContext{RunAsUser: ptr(int64(5)), RunAsGroup: ptr(int64(6))}, want: "uid=5 gid=6 groups=6"},
		"pod's groups":        {pod: corev1.PodSecurityContext{RunAsUser: ptr(int64(5)), FSGroup: ptr(int64(77)), SupplementalGroups: []int64{88}}, want: "uid=5 gid=0(root) groups=0(root),77,88"},
		"container wins":      {pod: corev1.PodSecurityContext{RunAsUser: ptr(int64(5))}, own: corev1.SecurityContext{RunAsUser: ptr(int64(9))}, want: "uid=9 gid=0(root) groups=0(root)"},
		"non-root by number":  {pod: corev1.PodSecurityContext{RunAsNonRoot: ptr(true)}, image: "101", want: "uid=101(web) gid=102(web) groups=102(web),103(extra)"},
		"root refused":        {pod: corev1.PodSecurityContext{RunAsNonRoot: ptr(true)}, refuse: "image will run as root"},
		"zero refused":        {pod: corev1.PodSecurityContext{RunAsNonRoot: ptr(true)}, own: corev1.SecurityContext{RunAsUser: ptr(int64(0))}, refuse: "breaks non-root policy"},
		"name cannot be sure": {pod: corev1.PodSecurityContext{RunAsNonRoot: ptr(true)}, image: "web", refuse: "cannot verify user is non-root"},
		"unknown user":        {image: "nobody-here", refuse: `the image's /etc/passwd has no "nobody-here"`},
		"unknown group":       {image: "web:nobodies", refuse: `the image's /etc/group has no "nobodies"`},
		"unknown further one": {groups: []string{"nobodies"}, refuse: "the image's /etc/group: unable to find group nobodies"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := h.spec("id")
			spec.Image.User, spec.Groups = tc.image, tc.groups
			spec.PodSecurity, spec.Container.SecurityContext = &tc.pod, &tc.own
			if tc.refuse != "" {
				err := h.engine.Create(t.Context(), spec)
				var failed *Error
				if !errors.As(err, &failed) || failed.Reason != ReasonConfigError || !strings.Contains(failed.Message, tc.refuse) {
					t.Fatalf("create: %v", err)
				}
				if _, err := h.engine.Status(t.Context(), spec.ID); !errdefs.IsNotFound(err) {
					t.Errorf("a refused container has to leave nothing: %v", err)
				}
				return
			}
			if _, out := h.run(spec); strings.TrimSpace(out) != tc.want {
				t.Errorf("got %q, want %q", out, tc.want)
			}
		})
	}
}

// procStatus reads a line of the container's /proc/self/status.
func procStatus(h *host, key string, change func(*ContainerSpec)) string {
	h.t.Helper()
	out := inside(h, change, "grep ^"+key+": /proc/self/status")
	_, value, _ := strings.Cut(out, ":")
	return strings.TrimSpace(value)
}

func TestRlimits(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		limits := func(s *ContainerSpec) {
			s.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 64, Hard: 128}, {Type: "RLIMIT_CORE", Hard: math.MaxUint64}}
		}
		if out := inside(h, limits, "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc"); out != "64\n128\n0\nunlimited\n" {
			t.Errorf("%q", out)
		}
	})
}

func TestConfinement(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		with := func(sc corev1.SecurityContext) func(*ContainerSpec) {
			return func(s *ContainerSpec) { s.Container.SecurityContext = &sc }
		}
		unconfined := with(corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}})
		dropAll := with(corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}}})
		for _, tc := range []struct {
			what, key, want string
			change          func(*ContainerSpec)
		}{
			{"the default capabilities", "CapEff", "00000000a80425fb", nil},
			{"one capability", "CapEff", "0000000000000400", dropAll},
			{"seccomp by default", "Seccomp", "2", nil},
			{"seccomp off", "Seccomp", "0", unconfined},
			{"privileges may grow by default", "NoNewPrivs", "0", nil},
			{"privileges may not grow", "NoNewPrivs", "1", with(corev1.SecurityContext{AllowPrivilegeEscalation: ptr(false)})},
			{"privileged has no filter", "Seccomp", "0", with(corev1.SecurityContext{Privileged: ptr(true)})},
		} {
			if got := procStatus(h, tc.key, tc.change); got != tc.want {
				t.Errorf("%s: %s is %s, want %s", tc.what, tc.key, got, tc.want)
			}
		}
		out := inside(h, with(corev1.SecurityContext{ReadOnlyRootFilesystem: ptr(true)}), "touch /x 2>&1 || echo refused; touch /dev/shm/y && echo shm")
		if !strings.Contains(out, "Read-only file system") || !strings.Contains(out, "refused\nshm\n") {
			t.Errorf("read-only root: %q", out)
		}
		if out := inside(h, nil, "cat /proc/kcore | head -c 1; touch /proc/sys/vm/x 2>&1 || echo refused"); !strings.Contains(out, "refused") {
			t.Errorf("masked paths: %q", out)
		}
	})
}

func TestVolumes(t *testing.T) {
	h := newHost(t, "runc")
	shared := filepath.Join(h.dir, "shared")
	if err := os.Mkdir(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	out := inside(h, func(s *ContainerSpec) {
		s.Image.Volumes = map[string]struct{}{"/data": {}, "/new": {}}
		s.Mounts = []Mount{
			{HostPath: shared, ContainerPath: "/mnt/rw"},
			{HostPath: shared, ContainerPath: "/mnt/rw/ro", ReadOnly: true},
		}
	}, "cat /data/seed.txt; echo x >/data/more && echo y >/new/file && echo z >/mnt/rw/file; touch /mnt/rw/ro/no 2>/dev/null || echo refused; cat /mnt/rw/ro/file")
	if out != "from the image\nrefused\nz\n" {
		t.Errorf("got %q", out)
	}
	if raw, err := os.ReadFile(filepath.Join(shared, "file")); err != nil || string(raw) != "z\n" {
		t.Errorf("on the host: %q, %v", raw, err)
	}
	if _, err := os.Stat(filepath.Join(h.dir, "image/data/more")); err == nil {
		t.Error("a volume of the image was written to the image")
	}
	spec := h.spec("true")
	spec.Mounts = []Mount{{HostPath: filepath.Join(h.dir, "missing"), ContainerPath: "/x"}}
	if err := h.engine.Create(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "mount at /x") {
		t.Errorf("a missing source: %v", err)
	}
}

func TestLimits(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		spec := h.spec("sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1; echo survived")
		spec.Container.Resources.Limits = corev1.ResourceList{
			corev1.ResourceMemory: resource.MustParse("32Mi"), corev1.ResourceCPU: resource.MustParse("500m"),
		}
		spec.PIDsLimit = 50
		spec.Container.Command = []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"}
		st, _ := h.run(spec)
		if st.ExitCode != 137 || !st.OOMKilled {
			t.Errorf("exit code %d, OOM killed %v; want 137, true", st.ExitCode, st.OOMKilled)
		}
		id := h.start(func() ContainerSpec {
			s := spec
			s.ID += "b"
			s.Container.Command = []string{"sleep", "1000"}
			return s
		}())
		// The runtime's own threads and memory are still on their way out.
		poll(t, "the statistics of one process", func() bool {
			usage, err := h.engine.Stats(t.Context(), id)
			pod, podErr := h.engine.PodStats(t.Context(), spec.CgroupParent)
			if err != nil || podErr != nil {
				t.Fatal(err, podErr)
			}
			return usage.PIDs == 1 && usage.Memory > 0 && pod.Memory >= usage.Memory
		})
		if err := h.engine.Update(t.Context(), id, corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}}); err != nil {
			t.Errorf("update: %v", err)
		}
	})
}

func TestRefusedByTheRuntime(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		spec := h.spec("foo", "bar")
		err := h.engine.Create(t.Context(), spec)
		var failed *Error
		if !errors.As(err, &failed) || failed.Reason != ReasonStartError {
			t.Fatalf("create: %v", err)
		}
		if !strings.Contains(failed.Message, "executable file") || !strings.Contains(failed.Message, "not found in $PATH") || !strings.Contains(failed.Message, "foo") {
			t.Errorf("message %q", failed.Message)
		}
		st, err := h.engine.Status(t.Context(), spec.ID)
		if err != nil || st.State != StateExited || st.ExitCode != 128 || st.Reason != ReasonStartError || st.Message != failed.Message {
			t.Errorf("status %+v, %v", st, err)
		}
		spec.Container.Command = []string{"true"}
		if st, _ := h.run(spec); st.ExitCode != 0 {
			t.Errorf("the next try: %+v", st)
		}
		if err := h.engine.Create(t.Context(), spec); !errdefs.IsAlreadyExists(err) {
			t.Errorf("create of what ran: %v", err)
		}
	})
}

func TestSignals(t *testing.T) {
	h := newHost(t, "runc")
	id := h.start(h.spec("sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"))
	st := h.waitFor(id, StateRunning)
	poll(t, "the trap", func() bool { return strings.Contains(h.output(st.Spec), "ready") })
	if err := h.engine.Signal(t.Context(), id, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if st := h.waitFor(id, StateExited); st.ExitCode != 3 {
		t.Errorf("exit code %d", st.ExitCode)
	}
	if err := h.engine.Signal(t.Context(), id, syscall.SIGTERM); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("signal to an exited container: %v", err)
	}
	if err := h.engine.Start(t.Context(), id); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("start of an exited container: %v", err)
	}
	id = h.start(h.spec("sleep", "1000"))
	if err := h.engine.Signal(t.Context(), id, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if st := h.waitFor(id, StateExited); st.ExitCode != 137 || st.OOMKilled {
		t.Errorf("killed: %+v", st)
	}
}

func TestHostPIDDiesWhole(t *testing.T) {
	h := newHost(t, "runc")
	spec := h.spec("sh", "-c", "sleep 1234 & sleep 1235 & echo $!; wait")
	spec.HostPID = true
	id := h.start(spec)
	poll(t, "children", func() bool { return h.output(spec) != "" })
	child, err := strconv.Atoi(strings.TrimSpace(h.output(spec)))
	if err != nil {
		t.Fatal(err)
	}
	if startTime(child) == 0 {
		t.Fatal("the child is not in the host's PID namespace")
	}
	if err := h.engine.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if startTime(child) != 0 {
		t.Error("a child outlived its container")
	}
}

func TestEvents(t *testing.T) {
	h := newHost(t, "runc")
	spec := h.spec("true")
	id := h.start(spec)
	deadline := time.After(30 * time.Second)
	for {
		select {
		case got := <-h.engine.Events():
			if got != id {
				t.Fatalf("event for %q", got)
			}
			if st, err := h.engine.Status(t.Context(), id); err == nil && st.State == StateExited {
				return
			}
		case <-deadline:
			t.Fatal("the exit was not reported")
		}
	}
}
