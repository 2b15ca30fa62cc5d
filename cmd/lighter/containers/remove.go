package containers

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/util/retry"

	"lighter.dev/lighter/api/v1alpha1"
)

// Remove deletes containers with all that they have written. Those that run are
// refused, or killed with force.
func (c *Cluster) Remove(ctx context.Context, names []string, force bool) error {
	return c.each(names, func(name string) error {
		pod, err := c.find(ctx, name)
		if err != nil {
			return err
		}
		if owner := metav1.GetControllerOf(pod); owner != nil {
			kind, of := c.manager(ctx, pod.Namespace, owner)
			return fmt.Errorf("pod %s belongs to %s %s, which would replace it: delete that (lighter delete %s/%s)", name, kind, of, kind, of)
		}
		if !force && isRunning(pod) {
			return fmt.Errorf("container %s is running: stop it first (lighter stop %s), or use -f", name, name)
		}
		f := c.follow(pod)
		defer f.stop()
		if err := c.delete(ctx, pod, 1); err != nil {
			return err
		}
		return f.untilGone(ctx)
	})
}

// delete deletes this very pod. With seconds 0 the API forgets it at once.
func (c *Cluster) delete(ctx context.Context, pod *corev1.Pod, seconds int64) error {
	options := metav1.DeleteOptions{GracePeriodSeconds: &seconds, Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
	err := c.Kube.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options)
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("remove container %s: %w", nameOf(pod), err)
}

// Wait waits until containers have ended, and prints their exit codes.
func (c *Cluster) Wait(ctx context.Context, names []string) error {
	var errs []error
	for _, name := range names {
		code, err := c.wait(ctx, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(c.Out, code)
	}
	return errors.Join(errs...)
}

func (c *Cluster) wait(ctx context.Context, name string) (int32, error) {
	pod, err := c.find(ctx, name)
	if err != nil {
		return 0, err
	}
	f := c.follow(pod)
	defer f.stop()
	var end *corev1.ContainerStateTerminated
	err = f.until(ctx, func(pod *corev1.Pod) (bool, error) {
		end = statusOf(pod).State.Terminated
		return end != nil, nil
	})
	if err != nil {
		return 0, fmt.Errorf("container %s: %w", name, err)
	}
	return end.ExitCode, nil
}

// Rename gives a container another name, by which the verbs find it. The pod's own
// name stays: Kubernetes has no other.
func (c *Cluster) Rename(ctx context.Context, name, next string) error {
	if errs := validation.IsDNS1123Subdomain(next); len(errs) > 0 {
		return fmt.Errorf("name %q: %s", next, errs[0])
	}
	if taken, err := c.find(ctx, next); err == nil {
		return fmt.Errorf("the name %s is taken by pod %s", next, taken.Name)
	}
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		pod, err := c.find(ctx, name)
		if err != nil {
			return err
		}
		return c.annotate(ctx, pod, v1alpha1.ContainerNameAnnotation, next)
	})
	if err != nil {
		return fmt.Errorf("rename container %s: %w", name, err)
	}
	return nil
}
