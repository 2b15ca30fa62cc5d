package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/signal"

	"lighter.dev/lighter/agent/hostapi"
	"lighter.dev/lighter/agent/pod"
	"lighter.dev/lighter/api/agentapi"
)

// hostContainers answers about the containers of this host's pods.
type hostContainers struct{ *host }

var _ hostapi.Containers = hostContainers{}

// find is a container that exists: it runs, or has run.
func (h hostContainers) find(name agentapi.ContainerName) (*pod.ContainerPicture, error) {
	picture, err := h.pods.Pod(name.Namespace, name.Pod, "")
	if err != nil {
		return nil, err
	}
	found, err := picture.Container(name.Container)
	if err == nil && found.ID == "" {
		err = fmt.Errorf("container %s of pod %s/%s was never started: %w", found.Name, name.Namespace, name.Pod, errdefs.ErrFailedPrecondition)
	}
	return found, err
}

// Top implements hostapi.Containers.
func (h hostContainers) Top(ctx context.Context, name agentapi.ContainerName) ([]agentapi.Process, error) {
	found, err := h.find(name)
	if err != nil {
		return nil, err
	}
	return h.engine.Processes(ctx, found.ID)
}

// Changes implements hostapi.Containers.
func (h hostContainers) Changes(ctx context.Context, name agentapi.ContainerName) ([]agentapi.Change, error) {
	found, err := h.find(name)
	if err != nil {
		return nil, err
	}
	status, err := h.engine.Status(ctx, found.ID)
	if err != nil {
		return nil, err
	}
	var mountPoints []string
	for _, m := range status.Spec.Mounts {
		mountPoints = append(mountPoints, strings.TrimSuffix(m.ContainerPath, "/"))
	}
	return h.store.Changes(ctx, status.Spec.RootFSKey(), mountPoints)
}

// Stats implements hostapi.Containers.
func (h hostContainers) Stats(ctx context.Context, namespace, name string) ([]agentapi.ContainerUsage, error) {
	picture, err := h.pods.Pod(namespace, name, "")
	if err != nil {
		return nil, err
	}
	var out []agentapi.ContainerUsage
	for _, c := range picture.Containers {
		if !c.Running {
			continue
		}
		used, err := h.engine.Stats(ctx, c.ID)
		if errdefs.IsNotFound(err) || errors.Is(err, fs.ErrNotExist) {
			continue // it has ended since
		} else if err != nil {
			return nil, fmt.Errorf("container %s of pod %s/%s: %w", c.Name, namespace, name, err)
		}
		out = append(out, agentapi.ContainerUsage{Container: c.Name, At: used.Time, CPU: used.CPU, Memory: used.WorkingSet})
	}
	return out, nil
}

// Signal implements hostapi.Containers.
func (h hostContainers) Signal(ctx context.Context, name agentapi.ContainerName, text string) error {
	sig, err := signal.ParseSignal(strings.ToUpper(text))
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	found, err := h.find(name)
	if err != nil {
		return err
	}
	return h.engine.Signal(ctx, found.ID, sig)
}
