package images

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

// defaultContainer is kubectl's annotation of the container that is meant when
// none is named.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// Commit makes an image of a container's file system. container is POD or
// POD/CONTAINER.
func (c *Cluster) Commit(ctx context.Context, container, tag string, edits agentapi.Edits, quiet bool) error {
	pod, name, err := c.container(ctx, container)
	if err != nil {
		return err
	}
	made, err := c.declare(ctx, tag, v1alpha1.ImageSource{Container: &v1alpha1.ContainerSource{Pod: pod.Name, Container: name}})
	if err != nil {
		return err
	}
	object, err := c.Object(c.Namespace, made.object.Name)
	if err != nil {
		return err
	}
	result, err := c.follow(quiet, func(report func(agentapi.Progress)) (agentapi.Result, error) {
		return object.Commit(ctx, edits, report)
	})
	if err != nil {
		c.giveUp(ctx, made)
		return fmt.Errorf("commit %s/%s: %w", pod.Name, name, err)
	}
	fmt.Fprintln(c.Out, result.Digest)
	return nil
}

// container finds a pod and one of its containers.
func (c *Cluster) container(ctx context.Context, ref string) (*corev1.Pod, string, error) {
	name, container, _ := strings.Cut(ref, "/")
	pod, err := c.pod(ctx, name)
	if err != nil {
		return nil, "", err
	}
	container, err = containerOf(pod, container)
	return pod, container, err
}

// pod finds a pod by its name, or by the one that "lighter rename" gave it.
func (c *Cluster) pod(ctx context.Context, name string) (*corev1.Pod, error) {
	api := c.Kube.CoreV1().Pods(c.Namespace)
	pod, err := api.Get(ctx, name, metav1.GetOptions{})
	if err == nil {
		return pod, nil
	}
	list, listErr := api.List(ctx, metav1.ListOptions{})
	if listErr != nil {
		return nil, listErr
	}
	i := slices.IndexFunc(list.Items, func(pod corev1.Pod) bool { return pod.Annotations[v1alpha1.ContainerNameAnnotation] == name })
	if i < 0 {
		return nil, err
	}
	return &list.Items[i], nil
}

// containerOf is the container that is meant.
func containerOf(pod *corev1.Pod, name string) (string, error) {
	var names []string
	for _, container := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		names = append(names, container.Name)
	}
	chosen := name
	switch annotated := pod.Annotations[defaultContainer]; {
	case chosen == "" && annotated != "":
		chosen = annotated
	case chosen == "":
		return names[0], nil
	}
	if !slices.Contains(names, chosen) {
		return "", fmt.Errorf("pod %s has no container %s: it has %s", pod.Name, chosen, strings.Join(names, ", "))
	}
	return chosen, nil
}
