package containers

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// SecurityOptions say as whom a container runs, and behind which fences.
type SecurityOptions struct {
	// User is USER[:GROUP], names or numbers; Groups are further ones.
	User   string
	Groups []string

	ReadOnly, Privileged     bool
	CapAdd, CapDrop, Options []string
	Ulimits, Sysctls         []string
	// PID and IPC are "" or "host".
	PID, IPC string
}

func (o SecurityOptions) apply(pod *corev1.Pod, c *corev1.Container) error {
	s := &corev1.SecurityContext{}
	if o.ReadOnly {
		s.ReadOnlyRootFilesystem = &o.ReadOnly
	}
	if o.Privileged {
		s.Privileged = &o.Privileged
	}
	if len(o.CapAdd)+len(o.CapDrop) > 0 {
		s.Capabilities = &corev1.Capabilities{Add: capabilities(o.CapAdd), Drop: capabilities(o.CapDrop)}
	}
	name, _, groups := o.names()
	if name == "" {
		var err error
		if s.RunAsUser, s.RunAsGroup, err = parseUser(o.User); err != nil {
			return err
		}
	}
	if err := o.confine(s); err != nil {
		return err
	}
	sysctls, err := parseSysctls(o.Sysctls)
	if err != nil {
		return err
	}
	if len(groups)+len(sysctls) > 0 {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{SupplementalGroups: groups, Sysctls: sysctls}
	}
	c.SecurityContext = s
	return o.share(pod)
}

// names are the user and the groups that the image's files have to be asked for;
// the other groups are numbers.
func (o SecurityOptions) names() (user string, groups []string, numbers []int64) {
	for _, part := range strings.SplitN(o.User, ":", 2) {
		if !isNumber(part) {
			user = o.User
		}
	}
	for _, group := range o.Groups {
		if n, err := strconv.ParseInt(group, 10, 32); err == nil && n >= 0 {
			numbers = append(numbers, n)
		} else {
			groups = append(groups, group)
		}
	}
	return user, groups, numbers
}

// isNumber is also true of a wrong number, of which parseUser says what is wrong.
func isNumber(text string) bool {
	return text == "" || strings.Trim(text, "-0123456789") == ""
}

// parseUser reads UID[:GID].
func parseUser(text string) (user, group *int64, err error) {
	if text == "" {
		return nil, nil, nil
	}
	uid, gid, both := strings.Cut(text, ":")
	number := func(part string) *int64 {
		n, parseErr := strconv.ParseInt(part, 10, 32)
		if parseErr != nil || n < 0 {
			err = fmt.Errorf("--user %s: want USER[:GROUP], by name or number", text)
		}
		return &n
	}
	user = number(uid)
	if both {
		group = number(gid)
	}
	return user, group, err
}

// capabilities are named without CAP_ in the API.
func capabilities(names []string) []corev1.Capability {
	var out []corev1.Capability
	for _, name := range names {
		out = append(out, corev1.Capability(strings.TrimPrefix(strings.ToUpper(name), "CAP_")))
	}
	return out
}

// confine reads --security-opt.
func (o SecurityOptions) confine(s *corev1.SecurityContext) error {
	for _, option := range o.Options {
		switch strings.Replace(option, ":", "=", 1) { // Docker takes both
		case "no-new-privileges", "no-new-privileges=true":
			no := false
			s.AllowPrivilegeEscalation = &no
		case "no-new-privileges=false":
		case "seccomp=unconfined":
			s.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
		default:
			return fmt.Errorf("--security-opt %s: want no-new-privileges or seccomp=unconfined", option)
		}
	}
	return nil
}

// share reads --pid and --ipc.
func (o SecurityOptions) share(pod *corev1.Pod) error {
	for flag, text := range map[string]string{"--pid": o.PID, "--ipc": o.IPC} {
		if text != "" && text != "host" && text != "private" {
			return fmt.Errorf("%s %s: want host, or nothing", flag, text)
		}
	}
	pod.Spec.HostPID, pod.Spec.HostIPC = o.PID == "host", o.IPC == "host"
	return nil
}

func parseSysctls(all []string) ([]corev1.Sysctl, error) {
	var out []corev1.Sysctl
	for _, text := range all {
		name, value, given := strings.Cut(text, "=")
		if name == "" || !given {
			return nil, fmt.Errorf("--sysctl %s: want NAME=VALUE", text)
		}
		out = append(out, corev1.Sysctl{Name: name, Value: value})
	}
	return out, nil
}

// parseUlimits reads NAME=SOFT[:HARD].
func parseUlimits(all []string) ([]v1alpha1.Ulimit, error) {
	var out []v1alpha1.Ulimit
	for _, text := range all {
		limit, err := units.ParseUlimit(text)
		if err != nil {
			return nil, fmt.Errorf("--ulimit %s: %w", text, err)
		}
		out = append(out, v1alpha1.Ulimit{Name: limit.Name, Soft: limit.Soft, Hard: limit.Hard})
	}
	return out, nil
}
