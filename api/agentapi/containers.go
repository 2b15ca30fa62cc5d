package agentapi

import (
	"context"
	"time"

	"k8s.io/client-go/rest"

	"lighter.dev/lighter/api/v1alpha1"
)

// Process is a process of a container.
type Process struct {
	// PID and PPID are the host's numbers.
	PID  int `json:"pid"`
	PPID int `json:"ppid"`
	// UID is the effective user's, as the host sees it.
	UID uint32 `json:"uid"`
	// Started is when it was forked, CPU the time that it has computed.
	Started time.Time     `json:"started"`
	CPU     time.Duration `json:"cpu"`
	// RSS is its resident memory in bytes.
	RSS int64 `json:"rss"`
	// Command has its arguments; of a kernel thread or a zombie, its name in brackets.
	Command []string `json:"command"`
}

// Change is one difference between a container's file system and its image.
type Change struct {
	// Kind is A (added), C (changed) or D (deleted).
	Kind string `json:"kind"`
	Path string `json:"path"`
}

// The kinds of changes, Docker's letters.
const (
	Added   = "A"
	Changed = "C"
	Deleted = "D"
)

// ContainerUsage is what a running container uses.
type ContainerUsage struct {
	Container string `json:"container"`
	// At is when it was looked at.
	At time.Time `json:"at"`
	// CPU is the time that it has computed since it began.
	CPU time.Duration `json:"cpu"`
	// Memory is its working set in bytes.
	Memory uint64 `json:"memory"`
}

// ContainerName names a container of a pod. Container may be empty if the pod
// has only one.
type ContainerName struct{ Namespace, Pod, Container string }

// ResourceContainers is the resource by which the API server passes on what is
// asked about a pod's containers; its objects are called as the pods are. Who may ask
// what is decided by the subresource.
const ResourceContainers = "containers"

// The subresources of containers.
const (
	SubresourceTop     = "top"
	SubresourceChanges = "changes"
	SubresourceStats   = "stats"
	SubresourceSignal  = "signal"
)

// ContainerClient asks about the containers of one pod, through the API server.
type ContainerClient struct{ endpoint }

// NewContainerClient leads to the containers of a pod.
func NewContainerClient(config *rest.Config, namespace, pod string) (*ContainerClient, error) {
	to, err := newEndpoint(config, "apis", v1alpha1.GroupName, v1alpha1.SchemeGroupVersion.Version, "namespaces", namespace, ResourceContainers, pod)
	return &ContainerClient{to}, err
}

// Top lists the processes of a running container.
func (c *ContainerClient) Top(ctx context.Context, container string) ([]Process, error) {
	var list []Process
	err := c.get(ctx, SubresourceTop, query(ParamContainer, container), &list)
	return list, err
}

// Changes says what a container has changed in its file system, in the order of
// paths.
func (c *ContainerClient) Changes(ctx context.Context, container string) ([]Change, error) {
	var list []Change
	err := c.get(ctx, SubresourceChanges, query(ParamContainer, container), &list)
	return list, err
}

// Stats says what the pod's running containers use.
func (c *ContainerClient) Stats(ctx context.Context) ([]ContainerUsage, error) {
	var list []ContainerUsage
	err := c.get(ctx, SubresourceStats, nil, &list)
	return list, err
}

// Signal sends a signal, by its name, to the first process of a container.
func (c *ContainerClient) Signal(ctx context.Context, container, signal string) error {
	var done struct{}
	return c.post(ctx, SubresourceSignal, query(ParamContainer, container, ParamSignal, signal), &done)
}
