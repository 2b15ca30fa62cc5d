package containers

import (
	"context"
	"fmt"
	"math"
	"strings"

	mobysignal "github.com/moby/sys/signal"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// Stop stops containers, and returns when they have ended. seconds is the time
// between the stop signal and SIGKILL, the container's own if nil.
func (c *Cluster) Stop(ctx context.Context, names []string, seconds *int64) error {
	return c.each(names, func(name string) error {
		return c.stop(ctx, name, v1alpha1.RunRequest{Stopped: true, GraceSeconds: seconds})
	})
}

func (c *Cluster) stop(ctx context.Context, name string, request v1alpha1.RunRequest) error {
	pod, asked, err := c.ask(ctx, name, isOver, request)
	if err != nil || !asked {
		return err
	}
	f := c.follow(pod)
	defer f.stop()
	return c.ended(name, f.until(ctx, func(pod *corev1.Pod) (bool, error) { return isOver(pod), nil }))
}

// ended takes a container that was removed for one that was stopped.
func (c *Cluster) ended(name string, err error) error {
	if err == nil || err == errGone { //nolint:errorlint // never wrapped
		return nil
	}
	return fmt.Errorf("container %s: %w", name, err)
}

// isOver: nothing runs, and nothing will by itself.
func isOver(pod *corev1.Pod) bool {
	state := statusOf(pod).State
	return state.Terminated != nil || state.Waiting != nil && state.Waiting.Reason == "Created"
}

// Start starts containers that have ended, on the files that they left.
func (c *Cluster) Start(ctx context.Context, names []string) error {
	return c.each(names, func(name string) error { return c.begin(ctx, name, isRunning, v1alpha1.RunRequest{}) })
}

// Restart stops containers that run, and starts them.
func (c *Cluster) Restart(ctx context.Context, names []string, seconds *int64) error {
	return c.each(names, func(name string) error {
		return c.begin(ctx, name, func(*corev1.Pod) bool { return false }, v1alpha1.RunRequest{GraceSeconds: seconds})
	})
}

func isRunning(pod *corev1.Pod) bool { return statusOf(pod).State.Running != nil }

// begin asks for a new attempt and waits until it runs.
func (c *Cluster) begin(ctx context.Context, name string, unneeded func(*corev1.Pod) bool, request v1alpha1.RunRequest) error {
	pod, asked, err := c.ask(ctx, name, unneeded, request)
	if err != nil || !asked {
		return err
	}
	f := c.follow(pod)
	defer f.stop()
	if _, err := c.awaitBegin(ctx, f, statusOf(pod).ContainerID); err != nil {
		return fmt.Errorf("container %s: %w", name, err)
	}
	return nil
}

// StartAttached starts one container and stays with it, as Run does.
func (c *Cluster) StartAttached(ctx context.Context, name string, stdin bool) (code int, err error) {
	pod, asked, err := c.ask(ctx, name, isRunning, v1alpha1.RunRequest{Attach: true})
	if err != nil {
		return 1, err
	}
	container := &pod.Spec.Containers[0]
	s := streams{stdin: stdin && container.Stdin, tty: container.TTY}
	f := c.follow(pod)
	defer f.stop()
	before := statusOf(pod).ContainerID
	at := awaits
	if !asked { // it runs: attach to that
		before = ""
	} else if at, err = c.awaitBegin(ctx, f, before); err != nil {
		return 1, fmt.Errorf("container %s: %w", name, err)
	}
	return c.stay(context.WithoutCancel(ctx), f, at, before, s)
}

// Kill sends a signal. SIGKILL and SIGTERM stop a container for good, whatever
// its restart policy, as with Docker; others are between the sender and it.
func (c *Cluster) Kill(ctx context.Context, names []string, signal string) error {
	sig, err := mobysignal.ParseSignal(strings.ToUpper(signal))
	if err != nil {
		return err
	}
	return c.each(names, func(name string) error {
		pod, err := c.find(ctx, name)
		if err != nil {
			return err
		}
		if !isRunning(pod) {
			return fmt.Errorf("container %s is not running", name)
		}
		_, ours := pod.Annotations[v1alpha1.ContainerAnnotation]
		own := ours && metav1.GetControllerOf(pod) == nil
		switch signalName(sig) {
		case "KILL":
			if none := int64(0); own {
				return c.stop(ctx, name, v1alpha1.RunRequest{Stopped: true, Signal: "SIGKILL", GraceSeconds: &none})
			}
		case "TERM":
			if forever := int64(math.MaxInt32); own {
				_, _, err := c.ask(ctx, name, isOver, v1alpha1.RunRequest{Stopped: true, Signal: "SIGTERM", GraceSeconds: &forever})
				return err
			}
		}
		return c.signal(ctx, pod, signalName(sig))
	})
}
