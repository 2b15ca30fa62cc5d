package containers

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilrand "k8s.io/apimachinery/pkg/util/rand"

	"lighter.dev/lighter/api/agentapi"
)

// Images makes images of containers, and takes them away.
type Images interface {
	Commit(ctx context.Context, container, tag string, edits agentapi.Edits, quiet bool) error
	Remove(ctx context.Context, refs []string, force bool) error
}

// maxDebugName leaves room for prefix and suffix in a name of 63 letters.
const maxDebugName = 45

// DebugFailed runs a shell on the files of a container that has failed, as it left
// them, on its host: with its environment, but without its volumes. name is POD or
// POD/CONTAINER. What it makes for that is gone afterwards.
func (c *Cluster) DebugFailed(ctx context.Context, name string, images Images) (code int, err error) {
	name, container, _ := strings.Cut(name, "/")
	pod, err := c.find(ctx, name)
	if err != nil {
		return codeEngine, err
	}
	if container, err = failed(pod, container); err != nil {
		return codeEngine, err
	}
	short := strings.Trim(pod.Name[:min(len(pod.Name), maxDebugName)], "-.")
	tag := "debug-" + short + "-" + utilrand.String(5)
	if err := images.Commit(ctx, pod.Name+"/"+container, tag, agentapi.Edits{}, true); err != nil {
		return codeEngine, err
	}
	defer func() {
		if removeErr := images.Remove(context.WithoutCancel(ctx), []string{tag}, true); removeErr != nil {
			err = errors.Join(err, removeErr)
		}
	}()
	shell := "/bin/sh"
	return c.Run(ctx, Options{
		Name: tag, Image: tag, Entrypoint: &shell, Node: pod.Spec.NodeName,
		Stdin: true, TTY: isTerminal(c.In), Remove: true,
	})
}

// failed picks the container of a pod that failed last, or checks the named one.
func failed(pod *corev1.Pod, name string) (string, error) {
	var last *corev1.ContainerStateTerminated
	chosen := ""
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			end := statuses[i].State.Terminated
			if end == nil && statuses[i].State.Running == nil {
				end = statuses[i].LastTerminationState.Terminated
			}
			wanted := name == statuses[i].Name || name == "" && end != nil && end.ExitCode != 0
			if end != nil && wanted && (last == nil || end.FinishedAt.After(last.FinishedAt.Time)) {
				last, chosen = end, statuses[i].Name
			}
		}
	}
	switch {
	case chosen != "":
		return chosen, nil
	case name != "":
		return "", fmt.Errorf("container %s of pod %s has not ended: \"lighter exec -it %s -c %s -- sh\" looks into it", name, pod.Name, pod.Name, name)
	}
	return "", fmt.Errorf("no container of pod %s has failed: \"lighter exec -it %s -- sh\" looks into one that runs", pod.Name, pod.Name)
}
