package runtime

import (
	"cmp"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
)

// Namespaces are the paths of a pod's pinned namespaces (bind mounts of
// /proc/<pid>/ns/*), which outlive every process in them. There is no pause
// container. An empty path means the host's namespace.
type Namespaces struct {
	Net string
	IPC string
	UTS string
}

// Mount is one bind mount into a container.
type Mount struct {
	HostPath      string
	ContainerPath string
	ReadOnly      bool
	Propagation   corev1.MountPropagationMode // "" means None
}

// ContainerSpec is all that Create needs. It is written to the container's
// state directory, so that an agent that restarts knows what it runs.
type ContainerSpec struct {
	// ID is unique on the host: <pod UID>_<container name>_<attempt>.
	ID string
	// PodUID, PodNamespace, PodName, Name and Attempt say whose it is.
	PodUID, PodNamespace, PodName, Name string
	Attempt                             int
	// Request is the number of the v1alpha1.RunRequest that the attempt was
	// started for, Retries how often the restart policy has started it since.
	Request int64
	Retries int
	// Snapshot names the container's file system in the image store: the ID of
	// the attempt that was the first to use it. "" is its own.
	Snapshot string
	// ImageRef is the name the user gave, ImageID the manifest digest it meant.
	ImageRef, ImageID string
	// Image is the configuration of the image (OCI image-spec).
	Image ocispec.ImageConfig
	// Runtime is the name of one of Config.Runtimes; "" is the host's own.
	Runtime string
	// Groups are further groups of the process, by the names or numbers of the
	// container's own /etc/group; Rlimits bound it.
	Groups  []string
	Rlimits []specs.POSIXRlimit
	// RootFS are the snapshotter's mounts. The engine mounts them on Create and
	// unmounts them on Delete.
	RootFS []mount.Mount
	// Container and PodSecurity are the API's wishes; command and args in them
	// are expanded already, and Env is complete but for the image's own.
	Container   *corev1.Container
	PodSecurity *corev1.PodSecurityContext
	Env         []string
	Mounts      []Mount
	Namespaces  Namespaces
	HostPID     bool
	Hostname    string
	// CgroupParent is the pod's cgroup, relative to Config.CgroupRoot.
	CgroupParent string
	// LogPath is the CRI-format log file conmon writes. Its folder is made by Create.
	LogPath string
	// OOMScoreAdj is best effort where CAP_SYS_RESOURCE is missing.
	OOMScoreAdj int
	// PIDsLimit bounds the number of tasks; 0 means no limit.
	PIDsLimit int64
	// CPUSet is a list of CPUs such as "0-3"; "" means all.
	CPUSet string
	// SeccompRoot is where Localhost seccomp profiles are looked up.
	SeccompRoot string
}

// RootFSKey names the container's file system in the image store.
func (s *ContainerSpec) RootFSKey() string { return cmp.Or(s.Snapshot, s.ID) }

// State is where a container is in its life.
type State string

// The states of a container. There is no way back.
const (
	StateCreated State = "created"
	StateRunning State = "running"
	StateExited  State = "exited"
	// StateUnknown: its supervisor is gone and left no exit file (power loss).
	StateUnknown State = "unknown"
)

// Status is one observation of a container.
type Status struct {
	Spec       ContainerSpec
	State      State
	PID        int
	CreatedAt  time.Time
	StartedAt  time.Time
	FinishedAt time.Time
	ExitCode   int
	// OOMKilled is true when the kernel killed it for its memory limit.
	OOMKilled bool
	// Reason and Message say why a create or start failed, for people. Of a
	// container that ran, Message is its termination message.
	Reason, Message string
}

// The reasons of a failure, in the words that Kubernetes' clients know.
const (
	// ReasonConfigError: the container's wishes contradict each other or the
	// image. Nothing was made, nothing has to be deleted.
	ReasonConfigError = "CreateContainerConfigError"
	// ReasonCreateError: the host could not prepare the container.
	ReasonCreateError = "CreateContainerError"
	// ReasonStartError: the OCI runtime refused it. It stays as an exited
	// container with code 128 until Delete, or until Create replaces it.
	ReasonStartError = "StartError"
)

// Error is what Create and Start return when a container cannot run as asked.
type Error struct {
	Reason, Message string
	Err             error
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }
