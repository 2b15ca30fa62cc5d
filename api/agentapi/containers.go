package agentapi

import (
	"context"
	"time"
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

// ContainerName names a container of a pod. Container may be empty if the pod
// has only one.
type ContainerName struct{ Namespace, Pod, Container string }

func (n ContainerName) query(more ...string) []string {
	return append([]string{ParamNamespace, n.Namespace, ParamPod, n.Pod, ParamContainer, n.Container}, more...)
}

// Top lists the processes of a running container.
func (c *Client) Top(ctx context.Context, name ContainerName) ([]Process, error) {
	var list []Process
	err := c.get(ctx, PathTop, query(name.query()...), &list)
	return list, err
}

// Changes says what a container has changed in its file system, in the order of
// paths.
func (c *Client) Changes(ctx context.Context, name ContainerName) ([]Change, error) {
	var list []Change
	err := c.get(ctx, PathChanges, query(name.query()...), &list)
	return list, err
}

// Signal sends a signal, by its name, to the first process of a container.
func (c *Client) Signal(ctx context.Context, name ContainerName, signal string) error {
	var done struct{}
	return c.post(ctx, PathSignal, query(name.query(ParamSignal, signal)...), &done)
}
