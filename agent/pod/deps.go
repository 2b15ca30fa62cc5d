package pod

import (
	"context"
	"log/slog"
	"net/netip"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/agent/objects"
	"lighter.dev/lighter/agent/probe"
	"lighter.dev/lighter/agent/runtime"
)

// Engine runs containers; *runtime.Engine implements it.
type Engine interface {
	PinNamespaces(ctx context.Context, podUID, hostname string, want Want) (runtime.Namespaces, error)
	UnpinNamespaces(ctx context.Context, podUID string) error
	// PinnedPods are the UIDs of pods that have pinned namespaces.
	PinnedPods() ([]string, error)
	PodCgroup(ctx context.Context, path string, limits *corev1.ResourceRequirements) error
	RemovePodCgroup(ctx context.Context, path string) error
	Create(ctx context.Context, spec runtime.ContainerSpec) error
	Start(ctx context.Context, id string) error
	Signal(ctx context.Context, id string, sig syscall.Signal) error
	Delete(ctx context.Context, id string) error
	// ReleaseRootFS unmounts the file system of a container that has ended.
	ReleaseRootFS(ctx context.Context, id string) error
	// WaitAttached returns when a client has attached to a container.
	WaitAttached(ctx context.Context, id string) error
	Status(ctx context.Context, id string) (runtime.Status, error)
	List(ctx context.Context) ([]runtime.Status, error)
	// Events names containers whose state changed.
	Events() <-chan string
	ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (stdout, stderr []byte, code int, err error)
}

// Want says which namespaces a pod has of its own.
type Want = struct{ Net, IPC, UTS bool }

// Images makes images present and containers' root file systems; *image.Store
// implements it.
type Images interface {
	Ensure(ctx context.Context, req image.Request) (image.Image, error)
	Prepare(ctx context.Context, containerID string, img image.Image, readOnly bool) ([]mount.Mount, error)
	Remove(ctx context.Context, containerID string) error
	// Containers are the IDs that Prepare was called for and Remove was not.
	Containers(ctx context.Context) ([]string, error)
}

// Sandbox is a pod as the network sees it.
type Sandbox struct {
	PodUID, Namespace, Name string
	// NetNS is the path of the pinned network namespace, "" on the host network.
	NetNS       string
	HostNetwork bool
	// Network is the kind that v1alpha1.NetworkAnnotation asks for, "" for the default.
	Network string
	// Ports are the container ports of all containers; those with a HostPort
	// are published.
	Ports []corev1.ContainerPort
}

// Network connects pods. Its methods are idempotent; Attach of a pod that is
// attached returns the same addresses.
type Network interface {
	Attach(ctx context.Context, s Sandbox) ([]netip.Addr, error)
	Detach(ctx context.Context, s Sandbox) error
	// Keep detaches all pods but these.
	Keep(ctx context.Context, podUIDs []string) error
}

// Volumes makes volumes; *volume.Manager implements it.
type Volumes interface {
	Setup(ctx context.Context, pod *corev1.Pod) (next time.Time, err error)
	Mounts(pod *corev1.Pod, c *corev1.Container, vars []corev1.EnvVar) ([]runtime.Mount, error)
	Teardown(ctx context.Context, uid types.UID) error
	Sweep(ctx context.Context, keep func(types.UID) bool) error
	PodDir(uid types.UID) string
}

// Objects reads ConfigMaps and Secrets; *objects.Cache implements it.
type Objects interface {
	Use(uid types.UID, refs []objects.Ref, changed func())
	Release(uid types.UID)
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Probes probes running containers; *probe.Manager implements it.
type Probes interface {
	Start(ctx context.Context, t probe.Target, report func(probe.Result))
	Stop(containerID string)
}

// Statuses writes to the API; *status.Manager implements it.
type Statuses interface {
	Set(pod *corev1.Pod, wanted corev1.PodStatus)
	Flush(ctx context.Context, uid types.UID) error
	Delete(ctx context.Context, pod *corev1.Pod) error
	// Expire has the API delete the pod as a user would: it is told to end.
	Expire(ctx context.Context, pod *corev1.Pod) error
	Forget(uid types.UID)
}

// Config is what a Manager needs. Func fields are asked anew each time.
type Config struct {
	Engine   Engine
	Images   Images
	Network  Network
	Volumes  Volumes
	Objects  Objects
	Probes   Probes
	Statuses Statuses
	Recorder record.EventRecorder
	Log      *slog.Logger

	NodeName string
	// HostIPs are the node's addresses, the primary one first.
	HostIPs func() []netip.Addr
	// Allocatable bounds what this node admits, and stands in for missing limits.
	Allocatable func() corev1.ResourceList
	// Services lists all services this node knows, for service links.
	Services func() []*corev1.Service
	// LogDir is the root of pod logs (/var/log/pods).
	LogDir string
	// ClusterDNS are the name servers of pods with dnsPolicy ClusterFirst.
	ClusterDNS    func() []netip.Addr
	ClusterDomain string
	// HostsFile and ResolvConf are the host's own (/etc/hosts, /etc/resolv.conf).
	HostsFile, ResolvConf string
}
