package main

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/agent/build"
	"lighter.dev/lighter/agent/hostapi"
	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/agent/runtime"
	"lighter.dev/lighter/api/agentapi"
)

// hostPaths answer about this host's images, containers and disk, by http.ServeMux
// pattern.
func (h *host) hostPaths() map[string]http.Handler {
	api := hostapi.New(hostapi.Config{
		Images: h.store, Content: hostContent{h}, Containers: hostContainers{h}, Disk: hostDisk{h}, Log: h.logOf("hostapi"),
	})
	paths := map[string]http.Handler{}
	for _, path := range hostapi.Paths() {
		paths[path] = api
	}
	return paths
}

// imageUsers tells the image store of containers by the names of their file systems,
// of which an attempt may have taken over one of an earlier attempt.
func (h *host) imageUsers(ctx context.Context, ids []string) []image.User {
	users := make([]image.User, len(ids))
	all, err := h.engine.List(ctx)
	if err != nil {
		h.logOf("image").Warn("containers not listed, all count as running", "error", err)
	}
	for i, id := range ids {
		users[i] = image.User{ID: id, Running: err != nil}
		for _, status := range all {
			if status.Spec.RootFSKey() != id {
				continue
			}
			users[i].Pod = status.Spec.PodNamespace + "/" + status.Spec.PodName
			if status.State == runtime.StateCreated || status.State == runtime.StateRunning {
				users[i].Running = true
			}
		}
	}
	return users
}

// hostContent makes the content of Image objects on this host.
type hostContent struct{ *host }

var _ hostapi.Content = hostContent{}

// Import implements hostapi.Content.
func (h hostContent) Import(ctx context.Context, namespace, name, ref string, edits agentapi.Edits, archive io.Reader, _ hostapi.Report) (agentapi.Result, error) {
	edit, err := image.ParseEdit(edits)
	if err != nil {
		return agentapi.Result{}, err
	}
	return h.builder.Make(ctx, namespace, name, build.Import, func(ctx context.Context) (ocispec.Descriptor, error) {
		return h.store.ImportContent(ctx, archive, ref, edit)
	})
}

// Commit implements hostapi.Content.
func (h hostContent) Commit(ctx context.Context, namespace, name, podName, container string, edits agentapi.Edits, _ hostapi.Report) (agentapi.Result, error) {
	edit, err := image.ParseEdit(edits)
	if err != nil {
		return agentapi.Result{}, err
	}
	picture, err := h.pods.Pod(namespace, podName, "")
	if err != nil {
		return agentapi.Result{}, err
	}
	found, err := picture.Container(container)
	if err != nil {
		return agentapi.Result{}, err
	}
	if found.RootFS == "" {
		return agentapi.Result{}, fmt.Errorf("container %s of pod %s/%s was never made: %w", found.Name, namespace, podName, errdefs.ErrFailedPrecondition)
	}
	how := image.ForPod(picture.Pod, containerOf(picture.Pod, found.Name))
	how.Edit = edit
	how.Pause = func(ctx context.Context) (func() error, error) { return h.pause(ctx, found.ID) }
	return h.builder.Make(ctx, namespace, name, build.Commit, func(ctx context.Context) (ocispec.Descriptor, error) {
		return h.store.CommitContent(ctx, found.RootFS, how)
	})
}

// pause stops a container while it is read. One that has ended needs none, and a
// host that cannot pause lets it run.
func (h hostContent) pause(ctx context.Context, id string) (resume func() error, err error) {
	switch err := h.engine.Pause(ctx, id); {
	case errdefs.IsFailedPrecondition(err), errdefs.IsNotFound(err):
		return func() error { return nil }, nil
	case errdefs.IsNotImplemented(err):
		h.logOf("image").Warn("container runs on while it is committed", "id", id, "error", err)
		return func() error { return nil }, nil
	case err != nil:
		return nil, err
	}
	return func() error { return h.engine.Resume(context.WithoutCancel(ctx), id) }, nil
}

// containerOf is what the pod's spec says of a container; an empty one if nothing.
func containerOf(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return &corev1.Container{Name: name}
}

// hostDisk measures.
type hostDisk struct{ *host }

// Usage implements hostapi.Disk.
func (h hostDisk) Usage(ctx context.Context) (agentapi.Usage, error) {
	usage, err := h.store.Usage(ctx)
	if err != nil {
		return agentapi.Usage{}, err
	}
	cache, err := h.builder.Usage(ctx)
	if err != nil {
		return agentapi.Usage{}, err
	}
	usage.Node, usage.Rows = h.options.nodeName, append(usage.Rows, cache)
	return usage, nil
}
