package stream

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/agent/runtime"
)

// Pods knows the pods of this host.
type Pods interface {
	// Lookup finds a pod; uid may be "". A pod that is not here is an error that
	// errdefs.IsNotFound recognises.
	Lookup(namespace, name, uid string) (Pod, error)
	// List returns the API objects of all pods here, with their status.
	List() []*corev1.Pod
}

// Pod is what a stream has to know of a pod.
type Pod struct {
	Namespace, Name, UID string
	// NetNS is the path of its network namespace; "" is the host's.
	NetNS string
	// CgroupParent is its cgroup, as in runtime.ContainerSpec.
	CgroupParent string
	// Containers are all of its containers: init, regular and ephemeral ones.
	Containers []Container
}

// Container is one container of a pod in its latest attempt.
type Container struct {
	Name string
	// ID and LogPath are those of the latest attempt that was created; "" if
	// there was none.
	ID, LogPath string
	// Running says whether that attempt runs.
	Running bool
	// Waiting is the reason why there is nothing to show yet or now, such as
	// ContainerCreating or ErrImagePull.
	Waiting string
	// PreviousLogPath is the log of the attempt before, "" if it is gone.
	PreviousLogPath string
	// TTY says that it has a terminal.
	TTY bool
}

func (p *Pod) container(name string) (Container, bool) {
	for _, c := range p.Containers {
		if c.Name == name {
			return c, true
		}
	}
	return Container{}, false
}

// Runtime is the part of *runtime.Engine that streams need.
type Runtime interface {
	Exec(ctx context.Context, id string, opts runtime.ExecOptions) (int, error)
	ExecSync(ctx context.Context, id string, command []string, timeout time.Duration) (stdout, stderr []byte, code int, err error)
	Attach(ctx context.Context, id string, opts runtime.AttachOptions) error
	Wait(ctx context.Context, id string) error
	Stats(ctx context.Context, id string) (runtime.Stats, error)
	PodStats(ctx context.Context, cgroup string) (runtime.Stats, error)
}

var _ Runtime = (*runtime.Engine)(nil)
