package v1alpha1

import "encoding/json"

// Annotations of pods that "lighter run" made, see
// hack/decisions/0011-containers-as-docker-users-know-them.md.
const (
	// ContainerAnnotation marks the pod, and holds a ContainerPolicy as JSON. It
	// is set when the pod is created.
	ContainerAnnotation = GroupName + "/container"
	// RunAnnotation holds a RunRequest as JSON. The client is its only writer
	// ("lighter start", "stop", "restart", "kill"); without it the container runs.
	RunAnnotation = GroupName + "/run"
	// ContainerNameAnnotation is the name that "lighter rename" gave. Verbs find
	// the pod by it as by its own name.
	ContainerNameAnnotation = GroupName + "/container-name"
	// NetworkAnnotation is the kind of network that connects a pod which is not in
	// its host's: NetworkBridge, which is the default, or NetworkNone.
	NetworkAnnotation = GroupName + "/network"
)

// The kinds of networks that a pod can ask for.
const (
	NetworkBridge = "bridge"
	NetworkNone   = "none"
)

// RestartPolicy is when an ended container starts again, in Docker's words.
type RestartPolicy string

// The restart policies. Unlike RestartUnlessStopped, RestartAlways starts a
// stopped container again when its agent starts.
const (
	RestartNo            RestartPolicy = "no"
	RestartOnFailure     RestartPolicy = "on-failure"
	RestartAlways        RestartPolicy = "always"
	RestartUnlessStopped RestartPolicy = "unless-stopped"
)

// ReasonAwaitsClient is why a container waits that begins when a client has
// attached to it (RunRequest.Attach).
const ReasonAwaitsClient = "AwaitsClient"

// ContainerPolicy is what Docker would keep beside a container.
type ContainerPolicy struct {
	Restart RestartPolicy `json:"restart"`
	// MaxRetries bounds RestartOnFailure; 0 is no bound.
	MaxRetries int `json:"maxRetries,omitempty"`
	// Remove deletes the pod when its container has ended.
	Remove bool `json:"remove,omitempty"`
	// User is whom the container runs as, "USER[:GROUP]" by the names or numbers of
	// its own /etc/passwd and /etc/group. It takes the place of the image's;
	// spec.securityContext, which has numbers alone, goes before it.
	User string `json:"user,omitempty"`
	// Groups are further groups of it, by name or number.
	Groups []string `json:"groups,omitempty"`
	// StopSignal takes the place of the image's.
	StopSignal string `json:"stopSignal,omitempty"`
	// Ulimits are setrlimit(2)'s.
	Ulimits []Ulimit `json:"ulimits,omitempty"`
}

// Ulimit bounds one resource of each process.
type Ulimit struct {
	// Name is Docker's: "nofile" is RLIMIT_NOFILE.
	Name string `json:"name"`
	// Soft and Hard are in the resource's own unit; -1 is no limit.
	Soft int64 `json:"soft"`
	Hard int64 `json:"hard"`
}

// ParseContainerPolicy reads the annotation of a pod; nil if there is none.
func ParseContainerPolicy(annotations map[string]string) (*ContainerPolicy, error) {
	text, marked := annotations[ContainerAnnotation]
	if !marked {
		return nil, nil
	}
	policy := &ContainerPolicy{}
	if err := json.Unmarshal([]byte(text), policy); err != nil {
		return nil, err
	}
	return policy, nil
}

// RunRequest is whether the container is to run now.
type RunRequest struct {
	// Number grows with each request, so that the agent tells a new one
	// ("restart") from one that it has carried out.
	Number int64 `json:"number"`
	// Stopped: the container is to be stopped, else to run.
	Stopped bool `json:"stopped,omitempty"`
	// GraceSeconds is how long it may take to stop; the pod's own if nil.
	GraceSeconds *int64 `json:"graceSeconds,omitempty"`
	// Signal is sent instead of the container's stop signal, "SIGKILL" for one.
	Signal string `json:"signal,omitempty"`
	// Attach: the container is made, but begins only when a client has attached,
	// so that this one sees all it prints. The agent waits for half a minute.
	Attach bool `json:"attach,omitempty"`
}
