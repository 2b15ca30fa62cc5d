package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// Options are the flags of "lighter run", in Docker's words.
type Options struct {
	Detach, Stdin, TTY, Remove    bool
	ReadOnly, Privileged, Init    bool
	Name, Hostname, Network, Node string
	Publish, Env, EnvFile, Volume []string
	Label, CapAdd, CapDrop        []string
	Memory, CPUs, Restart, User   string
	Workdir, Pull                 string
	// Entrypoint replaces the image's if it is not nil; "" takes it away.
	Entrypoint *string
	Image      string
	Command    []string
}

const (
	// mainContainer is the name of the container in its pod.
	mainContainer = "main"
	// stopTimeout is Docker's default of seconds between SIGTERM and SIGKILL.
	stopTimeout = 10
)

// Pod is what the options ask for. Nothing is looked up but the environment and
// the files that they name.
func (o Options) Pod(namespace string) (*corev1.Pod, error) {
	container, err := o.container()
	if err != nil {
		return nil, err
	}
	policy, err := parseRestart(o.Restart, o.Remove)
	if err != nil {
		return nil, err
	}
	annotations, err := annotate(policy, v1alpha1.RunRequest{Number: 1, Attach: !o.Detach})
	if err != nil {
		return nil, err
	}
	no, grace := false, int64(stopTimeout)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: o.Name, Namespace: namespace, Annotations: annotations},
		Spec: corev1.PodSpec{
			// The agent follows the policy in the annotation instead.
			RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
			// What runs knows nothing of the cluster unless it is told.
			AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			Hostname: o.Hostname, Tolerations: staying(),
		},
	}
	if o.Node != "" {
		pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: o.Node}
	}
	if pod.Labels, err = labels(o.Label); err != nil {
		return nil, err
	}
	if err := o.network(pod, container); err != nil {
		return nil, err
	}
	if err := o.volumes(pod, container); err != nil {
		return nil, err
	}
	pod.Spec.Containers = []corev1.Container{*container}
	return pod, nil
}

// staying keeps the container, and what it has written, when its host is lost for a
// while: nobody makes another, unlike for a Deployment's pods.
func staying() []corev1.Toleration {
	var out []corev1.Toleration
	for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		out = append(out, corev1.Toleration{Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
	}
	return out
}

func annotate(policy v1alpha1.ContainerPolicy, run v1alpha1.RunRequest) (map[string]string, error) {
	policyText, err := json.Marshal(policy)
	if err != nil {
		return nil, err
	}
	runText, err := json.Marshal(run)
	return map[string]string{v1alpha1.ContainerAnnotation: string(policyText), v1alpha1.RunAnnotation: string(runText)}, err
}

func (o Options) container() (*corev1.Container, error) {
	switch {
	case o.Init:
		return nil, errors.New("--init is not supported: let the image have an init as its entrypoint")
	case o.Image == "":
		return nil, errors.New("say which image to run")
	}
	c := &corev1.Container{
		Name: mainContainer, Image: o.Image, Args: o.Command, WorkingDir: o.Workdir,
		TTY: o.TTY, Stdin: o.Stdin,
		// The end of what is piped in is the end of the container's input. At a
		// terminal one may go and come back.
		StdinOnce: o.Stdin && !o.TTY && !o.Detach,
	}
	if o.Entrypoint != nil {
		c.Command = o.Command
		c.Args = nil
		if *o.Entrypoint != "" {
			c.Command, c.Args = []string{*o.Entrypoint}, o.Command
		}
	}
	pull, known := pullPolicies[o.Pull]
	if !known {
		return nil, fmt.Errorf("--pull %s: want missing, always or never", o.Pull)
	}
	c.ImagePullPolicy = pull
	var err error
	if c.Resources.Limits, err = parseLimits(o.Memory, o.CPUs); err != nil {
		return nil, err
	}
	if c.SecurityContext, err = o.security(); err != nil {
		return nil, err
	}
	c.Env, err = o.environment()
	return c, err
}

var pullPolicies = map[string]corev1.PullPolicy{
	"": corev1.PullIfNotPresent, "missing": corev1.PullIfNotPresent, "always": corev1.PullAlways, "never": corev1.PullNever,
}

func (o Options) security() (*corev1.SecurityContext, error) {
	user, group, err := parseUser(o.User)
	if err != nil {
		return nil, err
	}
	s := &corev1.SecurityContext{RunAsUser: user, RunAsGroup: group}
	if o.ReadOnly {
		s.ReadOnlyRootFilesystem = &o.ReadOnly
	}
	if o.Privileged {
		s.Privileged = &o.Privileged
	}
	if len(o.CapAdd)+len(o.CapDrop) > 0 {
		s.Capabilities = &corev1.Capabilities{Add: capabilities(o.CapAdd), Drop: capabilities(o.CapDrop)}
	}
	return s, nil
}

// capabilities are named without CAP_ in the API.
func capabilities(names []string) []corev1.Capability {
	var out []corev1.Capability
	for _, name := range names {
		out = append(out, corev1.Capability(strings.TrimPrefix(strings.ToUpper(name), "CAP_")))
	}
	return out
}

// environment: what is given later holds, and flags before files.
func (o Options) environment() ([]corev1.EnvVar, error) {
	var all []string
	for _, path := range o.EnvFile {
		lines, err := readEnvFile(path)
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	var out []corev1.EnvVar
	for _, text := range slices.Concat(all, o.Env) {
		v, given, err := parseEnv(text, os.LookupEnv)
		if err != nil {
			return nil, err
		}
		if !given {
			continue
		}
		out = slices.DeleteFunc(out, func(have corev1.EnvVar) bool { return have.Name == v.Name })
		out = append(out, v)
	}
	return out, nil
}

func labels(all []string) (map[string]string, error) {
	out := map[string]string{}
	for _, text := range all {
		key, value, _ := strings.Cut(text, "=")
		if key == "" {
			return nil, fmt.Errorf("--label %q: want KEY[=VALUE]", text)
		}
		out[key] = value
	}
	return out, nil
}

func (o Options) network(pod *corev1.Pod, c *corev1.Container) error {
	for _, text := range o.Publish {
		port, err := parsePort(text)
		if err != nil {
			return err
		}
		c.Ports = append(c.Ports, port)
	}
	switch o.Network {
	case "", v1alpha1.NetworkBridge:
		return nil
	case "host":
		pod.Spec.HostNetwork = true
	case v1alpha1.NetworkNone:
		pod.Annotations[v1alpha1.NetworkAnnotation] = v1alpha1.NetworkNone
	default:
		return fmt.Errorf("--network %s: want bridge, host or none", o.Network)
	}
	if len(c.Ports) > 0 {
		return fmt.Errorf("-p has no meaning with --network %s", o.Network)
	}
	if o.Network == "host" && o.Hostname != "" {
		return errors.New("-h has no meaning with --network host: the host's name is the container's")
	}
	return nil
}

func (o Options) volumes(pod *corev1.Pod, c *corev1.Container) error {
	for i, text := range o.Volume {
		source, mount, err := parseVolume(text, pod.Namespace, o.Node != "")
		if err != nil {
			return err
		}
		mount.Name = fmt.Sprintf("volume-%d", i)
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
			Name: mount.Name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: source}},
		})
		c.VolumeMounts = append(c.VolumeMounts, mount)
	}
	return nil
}
