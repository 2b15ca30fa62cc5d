package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ociRuntime is one OCI runtime program.
type ociRuntime struct {
	path    string
	flavour string // crun, runc or the base name of another
	// gate lets a created container run; nil: ask the program.
	gate func(ctx context.Context, fifo string, alive func() bool) error
	// filters: it takes seccomp filters that were compiled before.
	filters bool
}

// candidates in the order of preference: crun starts a container in a third of
// runc's time.
var candidates = []string{"crun", "runc"}

// pickRuntime takes the configured runtime, or the first candidate that works. A
// program that is installed may still not work here (crun before 1.9 and hybrid
// cgroups, seccomp without libseccomp, …), so each has to create a container.
func (e *Engine) pickRuntime(ctx context.Context) (ociRuntime, error) {
	names := candidates
	if e.cfg.Runtime != "" {
		names = []string{e.cfg.Runtime}
	}
	var errs []error
	for _, name := range names {
		oci, err := e.tryRuntime(ctx, name)
		if err == nil {
			e.log.Info("OCI runtime picked", "runtime", oci.flavour, "path", oci.path, "cgroups", e.cgroups.Mode())
			return oci, nil
		}
		if ctx.Err() != nil {
			return ociRuntime{}, ctx.Err() // says nothing about the program
		}
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
		if e.cfg.Runtime == "" && !errors.Is(err, exec.ErrNotFound) {
			e.log.Info("OCI runtime does not work on this host, trying the next", "runtime", name, "err", err)
		}
	}
	return ociRuntime{}, fmt.Errorf("no OCI runtime works on this host (packages runc or crun): %w", errors.Join(errs...))
}

// openRuntimes are the further runtimes, by name.
func (e *Engine) openRuntimes(ctx context.Context) (map[string]ociRuntime, error) {
	more := map[string]ociRuntime{}
	for name, program := range e.cfg.Runtimes {
		oci, err := e.tryRuntime(ctx, program)
		if err != nil {
			return nil, fmt.Errorf("OCI runtime %s (%s) does not work on this host: %w", name, program, err)
		}
		more[name] = oci
	}
	return more, nil
}

// runtimeOf is the OCI runtime that a container asks for.
func (e *Engine) runtimeOf(spec *ContainerSpec) (ociRuntime, error) {
	if spec.Runtime == "" {
		return e.oci, nil
	}
	oci, ok := e.more[spec.Runtime]
	if !ok {
		return oci, fmt.Errorf("this host has no OCI runtime %q (has %s): add it to the agent's setting runtimes: %w",
			spec.Runtime, strings.Join(slices.Sorted(maps.Keys(e.more)), ", "), errdefs.ErrNotFound)
	}
	return oci, nil
}

// tryRuntime opens a runtime that is able to create a container here.
func (e *Engine) tryRuntime(ctx context.Context, program string) (ociRuntime, error) {
	oci, err := openRuntime(ctx, program)
	if err == nil {
		err = e.probe(ctx, oci)
	}
	return oci, err
}

func openRuntime(ctx context.Context, name string) (ociRuntime, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return ociRuntime{}, err
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return ociRuntime{}, fmt.Errorf("ask for its version: %w", err)
	}
	oci := ociRuntime{path: path, flavour: filepath.Base(path)}
	switch first, _, _ := bytes.Cut(out, []byte(" ")); string(first) {
	case "runc":
		oci.flavour, oci.gate = "runc", runcGate
	case "crun":
		oci.flavour, oci.gate, oci.filters = "crun", crunGate, takesFilters(out)
	}
	return oci, nil
}

// probe creates a container and deletes it. Its root holds the runtime itself,
// which is never run there: the probe ends before the start.
func (e *Engine) probe(ctx context.Context, oci ociRuntime) error {
	bundle, err := os.MkdirTemp(e.cfg.RunDir, "probe-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(bundle) }()
	id := filepath.Base(bundle)
	if err := os.Mkdir(filepath.Join(bundle, "rootfs"), 0o755); err != nil {
		return err
	}
	if err := e.cgroups.Create(e.conmonCgroup()); err != nil {
		return err
	}
	group := e.cgroups.Path(id)
	if err := writeJSON(filepath.Join(bundle, "config.json"), probeSpec(group, oci.path)); err != nil {
		return err
	}
	root := filepath.Join(bundle, "oci")
	// No pipes: the container's process would keep them open.
	text, err := os.Create(filepath.Join(bundle, "out"))
	if err != nil {
		return err
	}
	defer func() { _ = text.Close() }()
	inTime, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	cmd := exec.CommandContext(inTime, oci.path, "--root", root, "create", "--bundle", bundle, id)
	cmd.Stdout, cmd.Stderr = text, text
	createErr := cmd.Run()
	out := tailOf(text)
	_ = exec.CommandContext(ctx, oci.path, "--root", root, "delete", "--force", id).Run()
	if err := e.cgroups.Kill(group); err != nil {
		return err
	}
	if err := e.cgroups.Remove(ctx, group); err != nil {
		return err
	}
	if createErr != nil {
		return fmt.Errorf("it cannot create a container: %s: %w", strings.TrimSpace(runtimeMessage(out)), createErr)
	}
	return nil
}

func probeSpec(group, program string) *specs.Spec {
	return &specs.Spec{
		Version: ociVersion,
		Root:    &specs.Root{Path: "rootfs", Readonly: true},
		Process: &specs.Process{Args: []string{"/probe"}, Cwd: "/"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/probe", Type: "bind", Source: program, Options: []string{"bind", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: group,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace},
			},
		},
	}
}
