package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// firstAgentEnv makes the test program play an agent that is to be killed. It
// holds the path of a file with the engine's configuration and containers to start.
const firstAgentEnv = "LIGHTER_TEST_FIRST_AGENT"

type firstAgent struct {
	Config Config
	Specs  []ContainerSpec
}

// playFirstAgent starts the containers, says so and waits for its end.
func playFirstAgent(path string) error {
	var job firstAgent
	if err := readJSON(path, &job); err != nil {
		return err
	}
	ctx := context.Background()
	engine, err := New(ctx, job.Config)
	if err != nil {
		return err
	}
	for _, spec := range job.Specs {
		if err := engine.Create(ctx, spec); err != nil {
			return err
		}
		if err := engine.Start(ctx, spec.ID); err != nil {
			return err
		}
	}
	if err := os.WriteFile(path+".ready", nil, 0o600); err != nil {
		return err
	}
	select {}
}

// killedAgent runs the containers with an agent process and kills that when
// ready says so.
func killedAgent(h *host, specs []ContainerSpec, ready func(path string) bool) {
	h.t.Helper()
	path := filepath.Join(h.dir, "job.json")
	cfg := h.cfg
	cfg.Log = nil
	raw, err := json.Marshal(firstAgent{Config: cfg, Specs: specs})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), firstAgentEnv+"="+path)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	poll(h.t, "the first agent", func() bool { return ready(path) })
	if err := cmd.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	_ = cmd.Wait()
}

func isReady(path string) bool { return exists(path + ".ready") }

// second starts the agent anew on the same directories.
func (h *host) second() {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h.t.Cleanup(cancel)
	engine, err := New(ctx, h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.engine = engine
}

func TestContainersSurviveTheAgent(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		stays := h.spec("sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done")
		ends := h.spec("sh", "-c", "cat; exit 9")
		ends.Container.Stdin = true
		killedAgent(h, []ContainerSpec{stays, ends}, isReady)
		// What ends while no agent looks is seen later all the same.
		h.second()
		st := h.waitFor(stays.ID, StateRunning)
		if st.PID == 0 || st.StartedAt.IsZero() || st.Spec.PodName != stays.PodName {
			t.Errorf("adopted as %+v", st)
		}
		before := len(h.output(stays))
		poll(t, "more output", func() bool { return len(h.output(stays)) > before })
		if _, _, code, err := h.engine.ExecSync(t.Context(), stays.ID, []string{"true"}, 0); code != 0 || err != nil {
			t.Errorf("exec after adoption: %d %v", code, err)
		}
		h.waitFor(ends.ID, StateRunning)
		pid := h.waitFor(ends.ID, StateRunning).PID
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for id := range h.engine.Events() {
			if id == ends.ID {
				if st, _ := h.engine.Status(t.Context(), id); st.State == StateExited {
					break
				}
			}
		}
		if st := h.waitFor(ends.ID, StateExited); st.ExitCode != 137 {
			t.Errorf("exit code %d", st.ExitCode)
		}
	})
}

// TestKilledAnywhere kills the agent at many points of create and start; the
// next one has to find and clean all of it. The host's check at the end proves it.
func TestKilledAnywhere(t *testing.T) {
	h := newHost(t, "runc")
	for i := range 12 {
		spec := h.spec("sleep", "1000")
		marks := []string{
			h.engine.stateDir(spec.ID), filepath.Join(h.engine.stateDir(spec.ID), recordFile),
			h.engine.rootfs(spec.ID), filepath.Join(h.engine.bundleDir(spec.ID), "config.json"),
			filepath.Join(h.engine.bundleDir(spec.ID), conmonLogFile), filepath.Join(h.engine.bundleDir(spec.ID), conmonPIDFile),
			filepath.Join(h.engine.ociRoot(), spec.ID), filepath.Join(h.engine.bundleDir(spec.ID), pidFile),
			filepath.Join(h.engine.ociRoot(), spec.ID, "exec.fifo"), filepath.Join(h.dir, "job.json.ready"),
			h.engine.bundleDir(spec.ID), filepath.Join(h.engine.bundleDir(spec.ID), "attach"),
		}
		_ = os.Remove(filepath.Join(h.dir, "job.json.ready"))
		// Some of the marks are there for a moment only: who misses it kills a little later.
		killedAgent(h, []ContainerSpec{spec}, func(path string) bool { return exists(marks[i%len(marks)]) || isReady(path) })
		h.second()
		list, err := h.engine.List(t.Context())
		if err != nil || len(list) != 1 || list[0].Spec.ID != spec.ID {
			t.Fatalf("after %s: list %+v, %v", marks[i%len(marks)], list, err)
		}
		t.Logf("killed at %s: %s", strings.TrimPrefix(marks[i%len(marks)], h.dir), list[0].State)
		if err := h.engine.Delete(t.Context(), spec.ID); err != nil {
			t.Errorf("delete: %v", err)
		}
		if pids, err := h.engine.cgroups.Processes(h.engine.containerCgroup(&spec)); err != nil || len(pids) > 0 {
			t.Errorf("processes %v, %v", pids, err)
		}
	}
}

// TestKilledWhileTheRuntimeCreates: Delete ends an OCI runtime that a former agent
// started, before it can make what was just removed.
func TestKilledWhileTheRuntimeCreates(t *testing.T) {
	h := newHost(t, "runc")
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal(err)
	}
	program, begun := filepath.Join(h.dir, "slow"), filepath.Join(h.dir, "begun")
	// It makes the container's first process when Delete has looked for some already.
	script := fmt.Sprintf("#!/bin/sh\ncase \" $* \" in *' create '*_main_0*) : > %s; sleep 1; %s \"$@\"; exec sleep 100;; esac\nexec %s \"$@\"\n", begun, runc, runc)
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil { //nolint:gosec // it is a program
		t.Fatal(err)
	}
	h.cfg.Runtimes = map[string]string{"slow": program}
	spec := h.spec("sleep", "1000")
	spec.Runtime = "slow"
	killedAgent(h, []ContainerSpec{spec}, func(string) bool { return exists(begun) })
	h.second()
	if err := h.engine.Delete(t.Context(), spec.ID); err != nil {
		t.Errorf("delete: %v", err)
	}
	if left := processesNaming(spec.ID); len(left) > 0 {
		t.Errorf("still at work: %v", left)
	}
}

func TestPowerLoss(t *testing.T) {
	h := newHost(t, "runc")
	spec := h.spec("sleep", "1000")
	id := h.start(spec)
	pid := h.waitFor(id, StateRunning).PID
	// The processes and the run directory go, the state directory stays.
	c, err := h.engine.lookup(id)
	if err != nil {
		t.Fatal(err)
	}
	conmon := c.rec.ConmonPID
	c.mu.Unlock()
	for _, victim := range []int{conmon, pid} {
		if err := unix.Kill(victim, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	poll(t, "their end", func() bool { return startTime(conmon) == 0 && startTime(pid) == 0 })
	if err := h.engine.UnpinNamespaces(t.Context(), spec.PodUID); err != nil {
		t.Fatal(err)
	}
	if err := unmountAll(h.engine.rootfs(id)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(h.cfg.RunDir); err != nil {
		t.Fatal(err)
	}
	h.second()
	st, err := h.engine.Status(t.Context(), id)
	if err != nil || st.State != StateUnknown || st.Message == "" {
		t.Errorf("status %+v, %v", st, err)
	}
	if err := h.engine.Delete(t.Context(), id); err != nil {
		t.Errorf("delete: %v", err)
	}
}
