package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/agent/cgroup"
)

// ociVersion is the OCI runtime-spec that all runtimes in use understand; none
// of what later ones added is used here.
const ociVersion = "1.0.2"

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ociSpec translates a container to an OCI runtime-spec. The rootfs has to be
// mounted: user names are looked up in it. What containerd's oci package has an
// option for is done by that; the rest is Kubernetes' rules.
func (e *Engine) ociSpec(ctx context.Context, spec *ContainerSpec) (*specs.Spec, error) {
	ctx = namespaces.WithNamespace(ctx, "lighter")
	sec := securityOf(spec)
	opts := []oci.SpecOpts{
		oci.WithRootFSPath(e.rootfs(spec.ID)),
		oci.WithoutMounts("/run", "/dev/shm"),
		withProcess(spec),
		oci.WithEnv(spec.Env),
		e.withNamespaces(spec),
		withUser(spec, sec),
		withCapabilities(sec),
		e.withResources(spec),
		oci.WithDefaultUnixDevices,
		e.withMounts(spec),
	}
	if sec.readOnlyRoot {
		opts = append(opts, oci.WithRootFSReadonly())
	}
	if sec.privileged {
		opts = append(opts, oci.WithWriteableSysfs, oci.WithWriteableCgroupfs, oci.WithHostDevices, oci.WithAllDevicesAllowed)
	}
	opts = append(opts, withConfinement(spec, sec)) // last: the seccomp profile goes by the capabilities
	out, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: spec.ID}, opts...)
	if err != nil {
		return nil, configError(err)
	}
	out.Version = ociVersion
	return out, nil
}

// configError marks what is wrong with the wishes, not with the host.
func configError(err error) error {
	return &Error{Reason: ReasonConfigError, Message: err.Error(), Err: err}
}

// withProcess sets command, directory and environment. In Kubernetes command
// replaces the image's entry point and its arguments, args the arguments alone.
func withProcess(spec *ContainerSpec) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		p := s.Process
		command, args := spec.Container.Command, spec.Container.Args
		if len(command) == 0 {
			command = spec.Image.Entrypoint
			if len(args) == 0 {
				args = spec.Image.Cmd
			}
		}
		p.Args = slices.Concat(command, args)
		if len(p.Args) == 0 {
			return fmt.Errorf("no command specified: neither container %q nor image %q names one", spec.Name, spec.ImageRef)
		}
		p.Cwd = "/"
		for _, dir := range []string{spec.Container.WorkingDir, spec.Image.WorkingDir} {
			if dir != "" {
				p.Cwd = filepath.Join("/", dir)
				break
			}
		}
		p.Env = slices.Clone(spec.Image.Env)
		if !slices.ContainsFunc(p.Env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") }) {
			p.Env = append([]string{defaultPath}, p.Env...)
		}
		if spec.Hostname != "" {
			p.Env = append(p.Env, "HOSTNAME="+spec.Hostname)
		}
		if spec.Container.TTY {
			p.Terminal = true
			p.Env = append(p.Env, "TERM=xterm")
		}
		p.Rlimits = spec.Rlimits // all others are those of the agent's service
		adj := possibleOOMScore(spec.OOMScoreAdj)
		p.OOMScoreAdj = &adj
		return nil
	}
}

// withNamespaces joins the pod's pinned namespaces. An empty path is the host's.
func (e *Engine) withNamespaces(spec *ContainerSpec) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
		add := func(kind specs.LinuxNamespaceType, path string) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
		}
		if !spec.HostPID {
			add(specs.PIDNamespace, "")
		}
		for _, ns := range []specs.LinuxNamespace{
			{Type: specs.NetworkNamespace, Path: spec.Namespaces.Net},
			{Type: specs.IPCNamespace, Path: spec.Namespaces.IPC},
			{Type: specs.UTSNamespace, Path: spec.Namespaces.UTS},
		} {
			if ns.Path != "" {
				s.Linux.Namespaces = append(s.Linux.Namespaces, ns)
			}
		}
		if e.cgroups.Mode() == cgroup.Unified && !securityOf(spec).privileged {
			add(specs.CgroupNamespace, "")
		}
		if spec.PodSecurity == nil {
			return nil
		}
		for _, sysctl := range spec.PodSecurity.Sysctls {
			if s.Linux.Sysctl == nil {
				s.Linux.Sysctl = map[string]string{}
			}
			// Both separators are legal in the API; the OCI spec wants dots.
			s.Linux.Sysctl[strings.ReplaceAll(sysctl.Name, "/", ".")] = sysctl.Value
		}
		return nil
	}
}

func (e *Engine) withResources(spec *ContainerSpec) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		devices := s.Linux.Resources.Devices // deny all, so far
		s.Linux.Resources = e.resources(spec)
		s.Linux.Resources.Devices = devices
		s.Linux.CgroupsPath = e.containerCgroup(spec)
		return nil
	}
}

// withConfinement sets no_new_privs, seccomp, masked and read-only paths.
func withConfinement(spec *ContainerSpec, sec security) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Process.NoNewPrivileges = !sec.allowEscalation
		if sec.privileged || sec.procMount == corev1.UnmaskedProcMount {
			s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
		}
		profile, err := seccompProfile(spec, sec, s)
		s.Linux.Seccomp = profile
		return err
	}
}

// possibleOOMScore is adj, or the agent's own score if the kernel would refuse to
// go below that: only CAP_SYS_RESOURCE may.
func possibleOOMScore(adj int) int {
	raw, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return adj
	}
	var own int
	if _, err := fmt.Sscan(string(raw), &own); err != nil || adj >= own || hasCapability("CAP_SYS_RESOURCE") {
		return adj
	}
	return own
}
