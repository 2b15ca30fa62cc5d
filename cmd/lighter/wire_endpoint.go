package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"lighter.dev/lighter/agent/pod"
	"lighter.dev/lighter/agent/stream"
)

// headerTimeout bounds how long a client may take to send its request.
const headerTimeout = 10 * time.Second

// listen opens the agent's HTTPS endpoint.
func (h *host) listen(ctx context.Context) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(h.options.port)))
	if err != nil {
		return nil, fmt.Errorf("the agent's endpoint: %w (another agent on this host? see --agent-port)", err)
	}
	return listener, nil
}

// serve answers the API server (logs, exec, builds, …) and other agents (image
// content) until ctx ends.
func (h *host) serve(ctx context.Context, listener net.Listener) error {
	const content = "/content/"
	extra := h.hostPaths()
	extra[content], extra["/build/"] = h.store.Handler(), h.builder.Handler()
	server := &http.Server{
		Handler: stream.NewHandler(stream.Config{
			Pods: streamPods{h.pods}, Runtime: h.engine, NodeName: h.options.nodeName,
			Authorize: stream.ByCertificate(content),
			Extra:     extra,
			Log:       h.logOf("endpoint"),
		}),
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(h.logOf("endpoint").Handler(), slog.LevelDebug),
		// Upgraded connections are HTTP/1.1's.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		BaseContext:  func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(tls.NewListener(listener, h.identity.ServingTLS()))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("the agent's endpoint: %w", err)
}

// streamPods shows the pod engine's pods to package stream.
type streamPods struct{ pods *pod.Manager }

// Lookup implements stream.Pods.
func (p streamPods) Lookup(namespace, name, uid string) (stream.Pod, error) {
	picture, err := p.pods.Pod(namespace, name, types.UID(uid))
	if err != nil {
		return stream.Pod{}, fmt.Errorf("%w: %w", errdefs.ErrNotFound, err)
	}
	out := stream.Pod{
		Namespace: namespace, Name: name, UID: string(picture.Pod.UID), NetNS: picture.NetNS, CgroupParent: picture.Cgroup,
	}
	waiting := waitingReasons(picture.Status)
	for _, c := range picture.Containers {
		out.Containers = append(out.Containers, stream.Container{
			Name: c.Name, ID: c.ID, LogPath: c.LogPath, Running: c.Running, Waiting: waiting[c.Name],
			PreviousLogPath: c.PreviousLogPath, TTY: c.TTY,
		})
	}
	return out, nil
}

// List implements stream.Pods.
func (p streamPods) List() []*corev1.Pod {
	var out []*corev1.Pod
	for _, picture := range p.pods.Pods() {
		shown := picture.Pod.DeepCopy()
		shown.Status = picture.Status
		out = append(out, shown)
	}
	return out
}

// waitingReasons are the reasons of containers that wait, by name.
func waitingReasons(status corev1.PodStatus) map[string]string {
	reasons := map[string]string{}
	for _, list := range [][]corev1.ContainerStatus{status.InitContainerStatuses, status.ContainerStatuses} {
		for _, c := range list {
			if c.State.Waiting != nil {
				reasons[c.Name] = c.State.Waiting.Reason
			}
		}
	}
	return reasons
}
