package images

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// Container is a pod's container as "docker inspect" prints it: the fields that
// have a meaning here, by Docker's names. "lighter get pod -o yaml" has the rest.
type Container struct {
	ID              string `json:"Id"`
	Created         string
	Path            string
	Args            []string
	State           State
	Image           string
	Name            string
	Namespace       string
	Pod             string
	Container       string
	Node            string
	RestartCount    int32
	HostConfig      HostConfig
	Mounts          []Mount
	Config          ContainerConfig
	NetworkSettings NetworkSettings
}

// State is how a container is.
type State struct {
	// Status is created, running, restarting or exited.
	Status                         string
	Running, Restarting, OOMKilled bool
	ExitCode                       int32
	Error                          string
	StartedAt, FinishedAt          string
}

// HostConfig is what the host was asked for.
type HostConfig struct {
	NetworkMode    string
	RestartPolicy  RestartPolicy
	Memory         int64 // bytes; 0 is no limit
	NanoCpus       int64 // 1e-9 of a processor; 0 is no limit
	Privileged     bool
	ReadonlyRootfs bool
}

// RestartPolicy is when an ended container starts again.
type RestartPolicy struct {
	Name              string
	MaximumRetryCount int
}

// Mount is a volume in a container.
type Mount struct {
	Name        string
	Destination string
	RW          bool
}

// ContainerConfig is what runs. What the pod leaves to the image is empty.
type ContainerConfig struct {
	Hostname, User, Image, WorkingDir string
	Env, Entrypoint, Cmd              []string
	Tty, OpenStdin                    bool
	Labels                            map[string]string
}

// NetworkSettings is where the container is reached.
type NetworkSettings struct {
	IPAddress string
	// Ports are "80/tcp" and the host's ports that lead to them.
	Ports map[string][]PortBinding
}

// PortBinding is a port of the host.
type PortBinding struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

// viewOf shows a container of a pod.
func viewOf(pod *corev1.Pod, name string) Container {
	var spec corev1.Container
	for _, container := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		if container.Name == name {
			spec = container
		}
	}
	var status corev1.ContainerStatus
	for _, candidate := range slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses) {
		if candidate.Name == name {
			status = candidate
		}
	}
	_, id, _ := strings.Cut(status.ContainerID, "://")
	command := slices.Concat(spec.Command, spec.Args)
	view := Container{
		ID: id, Created: stamp(pod.CreationTimestamp.Time), Args: []string{}, State: stateOf(pod, status), Image: status.ImageID,
		Name: "/" + cmp.Or(pod.Annotations[v1alpha1.ContainerNameAnnotation], pod.Name), Namespace: pod.Namespace, Pod: pod.Name,
		Container: name, Node: pod.Spec.NodeName, RestartCount: status.RestartCount,
		HostConfig: hostConfig(pod, spec), Mounts: []Mount{},
		Config: ContainerConfig{
			Hostname: cmp.Or(pod.Spec.Hostname, pod.Name), User: userOf(pod, spec), Image: spec.Image, WorkingDir: spec.WorkingDir,
			Env: envOf(spec), Entrypoint: spec.Command, Cmd: spec.Args, Tty: spec.TTY, OpenStdin: spec.Stdin, Labels: pod.Labels,
		},
		NetworkSettings: NetworkSettings{IPAddress: pod.Status.PodIP, Ports: portsOf(spec)},
	}
	if len(command) > 0 {
		view.Path, view.Args = command[0], command[1:]
	}
	for _, mount := range spec.VolumeMounts {
		view.Mounts = append(view.Mounts, Mount{Name: mount.Name, Destination: mount.MountPath, RW: !mount.ReadOnly})
	}
	return view
}

func stateOf(pod *corev1.Pod, status corev1.ContainerStatus) State {
	state := State{Status: "created"}
	ended := status.State.Terminated
	switch waiting := status.State.Waiting; {
	case status.State.Running != nil:
		state.Status, state.Running = "running", true
		state.StartedAt = stamp(status.State.Running.StartedAt.Time)
	case ended != nil:
		state.Status = "exited"
	case waiting != nil && status.LastTerminationState.Terminated != nil:
		ended = status.LastTerminationState.Terminated
		state.Status, state.Restarting, state.Error = "restarting", true, waiting.Message
	case waiting != nil:
		state.Error = waiting.Message
	}
	if ended != nil {
		state.ExitCode, state.OOMKilled = ended.ExitCode, ended.Reason == "OOMKilled"
		state.Error = cmp.Or(state.Error, ended.Message)
		state.StartedAt, state.FinishedAt = stamp(ended.StartedAt.Time), stamp(ended.FinishedAt.Time)
	}
	if state.Error == "" {
		state.Error = pod.Status.Message
	}
	return state
}

func stamp(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339Nano)
}

// restartPolicies are Kubernetes' words in Docker's.
var restartPolicies = map[corev1.RestartPolicy]v1alpha1.RestartPolicy{
	corev1.RestartPolicyAlways:    v1alpha1.RestartAlways,
	corev1.RestartPolicyOnFailure: v1alpha1.RestartOnFailure,
	corev1.RestartPolicyNever:     v1alpha1.RestartNo,
}

func hostConfig(pod *corev1.Pod, spec corev1.Container) HostConfig {
	config := HostConfig{
		NetworkMode:   "bridge",
		RestartPolicy: RestartPolicy{Name: string(restartPolicies[pod.Spec.RestartPolicy])},
		Memory:        spec.Resources.Limits.Memory().Value(),
		NanoCpus:      spec.Resources.Limits.Cpu().MilliValue() * 1e6,
	}
	if pod.Spec.HostNetwork {
		config.NetworkMode = "host"
	}
	var policy v1alpha1.ContainerPolicy
	if json.Unmarshal([]byte(pod.Annotations[v1alpha1.ContainerAnnotation]), &policy) == nil && policy.Restart != "" {
		config.RestartPolicy = RestartPolicy{string(policy.Restart), policy.MaxRetries}
	}
	if context := spec.SecurityContext; context != nil {
		config.Privileged = context.Privileged != nil && *context.Privileged
		config.ReadonlyRootfs = context.ReadOnlyRootFilesystem != nil && *context.ReadOnlyRootFilesystem
	}
	return config
}

func userOf(pod *corev1.Pod, spec corev1.Container) string {
	var uid *int64
	if context := pod.Spec.SecurityContext; context != nil {
		uid = context.RunAsUser
	}
	if context := spec.SecurityContext; context != nil && context.RunAsUser != nil {
		uid = context.RunAsUser
	}
	if uid == nil {
		return ""
	}
	return fmt.Sprint(*uid)
}

// envOf are variables with a value of their own. Those from Secrets and the like
// are not shown: whoever may read the pod may not always read them.
func envOf(spec corev1.Container) []string {
	env := []string{}
	for _, variable := range spec.Env {
		if variable.ValueFrom == nil {
			env = append(env, variable.Name+"="+variable.Value)
		}
	}
	return env
}

func portsOf(spec corev1.Container) map[string][]PortBinding {
	ports := map[string][]PortBinding{}
	for _, port := range spec.Ports {
		key := fmt.Sprintf("%d/%s", port.ContainerPort, strings.ToLower(string(cmp.Or(port.Protocol, corev1.ProtocolTCP))))
		ports[key] = nil
		if port.HostPort != 0 {
			ports[key] = []PortBinding{{cmp.Or(port.HostIP, "0.0.0.0"), fmt.Sprint(port.HostPort)}}
		}
	}
	return ports
}
