package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/sys/signal"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// Options are the flags of "lighter run", in Docker's words.
type Options struct {
	Detach, Stdin, TTY, Remove      bool
	Name, Node, Platform, CIDFile   string
	Runtime                         string
	Label, Env, EnvFile             []string
	Workdir, Pull, Restart          string
	Memory, MemoryReservation, CPUs string
	StopSignal                      string
	// StopTimeout is in seconds: Docker's 10 if it is nil, for ever if it is negative.
	StopTimeout *int64
	// Entrypoint replaces the image's if it is not nil; "" takes it away.
	Entrypoint *string
	Image      string
	Command    []string

	Network  NetworkOptions
	Security SecurityOptions
	Storage  StorageOptions
	Health   HealthOptions
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
	annotations, err := o.annotations()
	if err != nil {
		return nil, err
	}
	no, grace := false, int64(stopTimeout)
	if o.StopTimeout != nil {
		grace = *o.StopTimeout
	}
	if grace < 0 {
		grace = math.MaxInt32
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: o.Name, Namespace: namespace, Annotations: annotations},
		Spec: corev1.PodSpec{
			// The agent follows the policy in the annotation instead.
			RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
			// What runs knows nothing of the cluster unless it is told.
			AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			Tolerations: staying(),
		},
	}
	if o.Runtime != "" {
		pod.Spec.RuntimeClassName = &o.Runtime
	}
	if pod.Labels, err = labels(o.Label); err != nil {
		return nil, err
	}
	if pod.Spec.NodeSelector, err = o.place(); err != nil {
		return nil, err
	}
	if err := o.Security.apply(pod, container); err != nil {
		return nil, err
	}
	if err := o.Network.apply(pod, container); err != nil {
		return nil, err
	}
	if err := o.Storage.apply(pod, container); err != nil {
		return nil, err
	}
	pod.Spec.Containers = []corev1.Container{*container}
	return pod, nil
}

// place says on which hosts it may run.
func (o Options) place() (map[string]string, error) {
	out := map[string]string{}
	if o.Node != "" {
		out[corev1.LabelHostname] = o.Node
	}
	if o.Platform != "" {
		p, err := platforms.Parse(o.Platform)
		if err != nil {
			return nil, fmt.Errorf("--platform: %w", err)
		}
		out[corev1.LabelOSStable], out[corev1.LabelArchStable] = p.OS, p.Architecture
	}
	return out, nil
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

// annotations hold what Docker knows of a container and a pod's spec does not.
func (o Options) annotations() (map[string]string, error) {
	policy, err := parseRestart(o.Restart, o.Remove)
	if err != nil {
		return nil, err
	}
	policy.User, policy.Groups, _ = o.Security.names()
	if policy.Ulimits, err = parseUlimits(o.Security.Ulimits); err != nil {
		return nil, err
	}
	if o.StopSignal != "" {
		if _, err := signal.ParseSignal(strings.ToUpper(o.StopSignal)); err != nil {
			return nil, fmt.Errorf("--stop-signal: %w", err)
		}
		policy.StopSignal = strings.ToUpper(o.StopSignal)
	}
	return annotate(policy, v1alpha1.RunRequest{Number: 1, Attach: !o.Detach})
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
	if o.Image == "" {
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
	if c.Resources, err = parseResources(o.Memory, o.MemoryReservation, o.CPUs); err != nil {
		return nil, err
	}
	if c.ReadinessProbe, err = o.Health.probe(); err != nil {
		return nil, err
	}
	c.Env, err = o.environment()
	return c, err
}

var pullPolicies = map[string]corev1.PullPolicy{
	"": corev1.PullIfNotPresent, "missing": corev1.PullIfNotPresent, "always": corev1.PullAlways, "never": corev1.PullNever,
}
