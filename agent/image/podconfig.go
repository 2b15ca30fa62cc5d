package image

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"

	"lighter.dev/lighter/api/v1alpha1"
)

// ForPod says how an image is committed of a container: with what the pod's spec
// set on top of the image's configuration, so that the new image runs as the
// container did. Values that come from elsewhere (ConfigMaps, Secrets, the pod's
// own fields) stay out of it. It is pure.
func ForPod(pod *corev1.Pod, c *corev1.Container) Commit {
	env, lookup := literals(c.Env)
	expand := func(words []string) []string {
		var out []string
		for _, w := range words {
			out = append(out, expansion.Expand(w, lookup))
		}
		return out
	}
	command, args := expand(c.Command), expand(c.Args)
	policy, err := v1alpha1.ParseContainerPolicy(pod.Annotations)
	if policy == nil || err != nil { // the agent ignores what it cannot read, and says so
		policy = &v1alpha1.ContainerPolicy{}
	}
	return Commit{
		MountPoints: ownMounts(c),
		CreatedBy:   strings.Join(append(slices.Clone(command), args...), " "),
		Change: func(img *ocispec.ImageConfig) {
			if len(command) > 0 {
				// As in a pod: a command of one's own goes without the image's arguments.
				img.Entrypoint, img.Cmd = command, nil
			}
			if len(args) > 0 {
				img.Cmd = args
			}
			img.Env = mergeEnv(img.Env, env)
			img.WorkingDir = cmp.Or(c.WorkingDir, img.WorkingDir)
			img.User = cmp.Or(user(pod.Spec.SecurityContext, c.SecurityContext), policy.User, img.User)
			img.StopSignal = cmp.Or(policy.StopSignal, img.StopSignal)
			for _, p := range c.Ports {
				if img.ExposedPorts == nil {
					img.ExposedPorts = map[string]struct{}{}
				}
				img.ExposedPorts[fmt.Sprintf("%d/%s", p.ContainerPort, strings.ToLower(cmp.Or(string(p.Protocol), "tcp")))] = struct{}{}
			}
		},
	}
}

// tokenPath is where service account tokens are mounted, asked for or not.
const tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// ownMounts are those that no user has asked for, at a container's start. Those of
// volumes stay in an image, as with Docker.
func ownMounts(c *corev1.Container) []string {
	out := []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", tokenPath}
	if path := c.TerminationMessagePath; path != "" {
		out = append(out, path)
	}
	return out
}

// literals are the variables whose value the spec itself holds, and how $(NAME)
// expands: others' names stay as they are written.
func literals(vars []corev1.EnvVar) ([]string, func(string) string) {
	var out []string
	known := map[string]string{}
	lookup := expansion.MappingFuncFor(known)
	for _, v := range vars {
		if v.ValueFrom != nil {
			delete(known, v.Name)
			continue
		}
		known[v.Name] = expansion.Expand(v.Value, lookup)
		out = append(out, v.Name+"="+known[v.Name])
	}
	return out, lookup
}

// mergeEnv sets variables in a list of NAME=VALUE, in place where they are there.
func mergeEnv(base, more []string) []string {
	out := slices.Clone(base)
	for _, v := range more {
		name, _, _ := strings.Cut(v, "=")
		i := slices.IndexFunc(out, func(have string) bool { return strings.HasPrefix(have, name+"=") })
		if i < 0 {
			out = append(out, v)
		} else {
			out[i] = v
		}
	}
	return out
}

// user is whom the spec lets the container run as, "" if it leaves that to the image.
func user(pod *corev1.PodSecurityContext, c *corev1.SecurityContext) string {
	var uid, gid *int64
	if pod != nil {
		uid, gid = pod.RunAsUser, pod.RunAsGroup
	}
	if c != nil {
		uid, gid = cmp.Or(c.RunAsUser, uid), cmp.Or(c.RunAsGroup, gid)
	}
	switch {
	case uid == nil:
		return ""
	case gid == nil:
		return strconv.FormatInt(*uid, 10)
	default:
		return fmt.Sprintf("%d:%d", *uid, *gid)
	}
}
