package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
)

// security is what container and pod wish together: the container's word wins
// where both may speak.
type security struct {
	privileged, readOnlyRoot, allowEscalation bool
	nonRoot                                   bool
	user, group                               *int64
	groups                                    []int64
	onlyOwnGroups                             bool
	capabilities                              corev1.Capabilities
	seccomp                                   *corev1.SeccompProfile
	procMount                                 corev1.ProcMountType
}

func securityOf(spec *ContainerSpec) security {
	sec := security{allowEscalation: true}
	if pod := spec.PodSecurity; pod != nil {
		sec.user, sec.group, sec.seccomp = pod.RunAsUser, pod.RunAsGroup, pod.SeccompProfile
		sec.nonRoot = pod.RunAsNonRoot != nil && *pod.RunAsNonRoot
		sec.groups = slices.Clone(pod.SupplementalGroups)
		if pod.FSGroup != nil {
			sec.groups = append(sec.groups, *pod.FSGroup)
		}
		sec.onlyOwnGroups = pod.SupplementalGroupsPolicy != nil && *pod.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict
	}
	own := spec.Container.SecurityContext
	if own == nil {
		return sec
	}
	if own.RunAsUser != nil {
		sec.user = own.RunAsUser
	}
	if own.RunAsGroup != nil {
		sec.group = own.RunAsGroup
	}
	if own.RunAsNonRoot != nil {
		sec.nonRoot = *own.RunAsNonRoot
	}
	if own.SeccompProfile != nil {
		sec.seccomp = own.SeccompProfile
	}
	if own.Capabilities != nil {
		sec.capabilities = *own.Capabilities
	}
	if own.ProcMount != nil {
		sec.procMount = *own.ProcMount
	}
	sec.privileged = own.Privileged != nil && *own.Privileged
	sec.readOnlyRoot = own.ReadOnlyRootFilesystem != nil && *own.ReadOnlyRootFilesystem
	if own.AllowPrivilegeEscalation != nil {
		sec.allowEscalation = *own.AllowPrivilegeEscalation
	}
	return sec
}

// checkNonRoot says what the kubelet says.
func checkNonRoot(spec *ContainerSpec, sec security) error {
	if !sec.nonRoot {
		return nil
	}
	whose := fmt.Sprintf("(pod: %q, container: %q)", spec.PodName+"_"+spec.PodNamespace, spec.Name)
	if sec.user != nil {
		if *sec.user == 0 {
			return fmt.Errorf("container's runAsUser breaks non-root policy %s", whose)
		}
		return nil
	}
	user, _, _ := strings.Cut(spec.Image.User, ":")
	uid, err := strconv.ParseInt(user, 10, 64)
	switch {
	case user == "" || err == nil && uid == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", whose)
	case err != nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", user, whose)
	}
	return nil
}

// withUser sets user and groups. Names are looked up in the container's own
// /etc/passwd and /etc/group.
func withUser(spec *ContainerSpec, sec security) oci.SpecOpts {
	return func(ctx context.Context, client oci.Client, c *containers.Container, s *oci.Spec) error {
		if err := checkNonRoot(spec, sec); err != nil {
			return err
		}
		user := spec.Image.User
		if sec.user != nil {
			user = strconv.FormatInt(*sec.user, 10)
		}
		if sec.group != nil {
			name, _, _ := strings.Cut(user, ":")
			if name == "" {
				name = "0"
			}
			user = name + ":" + strconv.FormatInt(*sec.group, 10)
		}
		if user == "" {
			user = "0"
		}
		if err := oci.WithUser(user)(ctx, client, c, s); err != nil {
			return unknownUser(user, err)
		}
		if !sec.onlyOwnGroups {
			uid := strconv.FormatUint(uint64(s.Process.User.UID), 10)
			if err := oci.WithAdditionalGIDs(uid)(ctx, client, c, s); err != nil {
				return fmt.Errorf("groups of user %s: %w", uid, err)
			}
		}
		if err := oci.WithAppendAdditionalGroups(spec.Groups...)(ctx, client, c, s); err != nil {
			return fmt.Errorf("the image's /etc/group: %w", err)
		}
		for _, gid := range sec.groups {
			if !slices.Contains(s.Process.User.AdditionalGids, uint32(gid)) {
				s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, uint32(gid))
			}
		}
		return nil
	}
}

// unknownUser says where a name was looked for.
func unknownUser(user string, err error) error {
	name, group, _ := strings.Cut(user, ":")
	switch {
	case errors.Is(err, oci.ErrNoUsersFound), errors.Is(err, fs.ErrNotExist) && group == "":
		return fmt.Errorf("user %q: the image's /etc/passwd has no %q", user, name)
	case errors.Is(err, oci.ErrNoGroupsFound):
		return fmt.Errorf("user %q: the image's /etc/group has no %q", user, group)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("user %q: the image has no /etc/passwd or no /etc/group: give numbers", user)
	}
	return fmt.Errorf("user %q: %w", user, err)
}

// withCapabilities starts from Docker's default set; "ALL" is what the agent has.
func withCapabilities(sec security) oci.SpecOpts {
	return func(ctx context.Context, client oci.Client, c *containers.Container, s *oci.Spec) error {
		if sec.privileged {
			return oci.WithAllCurrentCapabilities(ctx, client, c, s)
		}
		add, drop := capabilityNames(sec.capabilities.Add), capabilityNames(sec.capabilities.Drop)
		if slices.Contains(drop, "CAP_ALL") {
			if err := oci.WithCapabilities(nil)(ctx, client, c, s); err != nil {
				return err
			}
		}
		if slices.Contains(add, "CAP_ALL") {
			if err := oci.WithAllCurrentCapabilities(ctx, client, c, s); err != nil {
				return err
			}
		}
		isAll := func(name string) bool { return name == "CAP_ALL" }
		if err := oci.WithDroppedCapabilities(slices.DeleteFunc(drop, isAll))(ctx, client, c, s); err != nil {
			return err
		}
		return oci.WithAddedCapabilities(slices.DeleteFunc(add, isAll))(ctx, client, c, s)
	}
}

// capabilityNames gives the kernel's names: the API's lack CAP_.
func capabilityNames(in []corev1.Capability) []string {
	out := make([]string, 0, len(in))
	for _, name := range in {
		upper := strings.ToUpper(string(name))
		if !strings.HasPrefix(upper, "CAP_") {
			upper = "CAP_" + upper
		}
		out = append(out, upper)
	}
	return out
}

var ownCapabilities = sync.OnceValue(func() []string {
	caps, err := cap.Current()
	if err != nil {
		return nil
	}
	return caps
})

// hasCapability says whether the agent itself has one.
func hasCapability(name string) bool { return slices.Contains(ownCapabilities(), name) }

// seccompProfile: the runtime's default unless the pod says otherwise, which is
// stricter than Kubernetes' own default and what SeccompDefault gives there.
func seccompProfile(spec *ContainerSpec, sec security, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	kind := corev1.SeccompProfileTypeRuntimeDefault
	if sec.seccomp != nil {
		kind = sec.seccomp.Type
	}
	switch {
	case sec.privileged || kind == corev1.SeccompProfileTypeUnconfined:
		return nil, nil
	case kind == corev1.SeccompProfileTypeRuntimeDefault:
		return seccomp.GetDefaultProfile(s)
	case kind != corev1.SeccompProfileTypeLocalhost || sec.seccomp.LocalhostProfile == nil:
		return nil, fmt.Errorf("seccomp profile type %q is unknown or names no profile", kind)
	}
	name := *sec.seccomp.LocalhostProfile
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("seccomp profile %q has to be a path below the node's seccomp folder", name)
	}
	raw, err := os.ReadFile(filepath.Join(spec.SeccompRoot, name))
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	return seccomp.LoadProfile(string(raw), s)
}
