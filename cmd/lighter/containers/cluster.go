package containers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

// Cluster is what the verbs work with.
type Cluster struct {
	Kube kubernetes.Interface
	// REST is for streams (attach).
	REST *rest.Config
	// Containers leads to what the agent of a pod's host answers about it.
	Containers func(pod *corev1.Pod) (*agentapi.ContainerClient, error)
	Namespace  string
	// Logins are what the user's Docker configuration knows of the registry of an
	// image; nil knows nothing.
	Logins func(image string) ([]agentapi.Credential, error)

	In io.Reader
	// Out gets the result, Err progress and warnings.
	Out, Err io.Writer
}

// Connect makes the clients.
func Connect(config *rest.Config, namespace string) (*Cluster, error) {
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Cluster{
		Kube: kube, REST: config, Namespace: namespace,
		Containers: func(pod *corev1.Pod) (*agentapi.ContainerClient, error) {
			return agentapi.NewContainerClient(config, pod.Namespace, pod.Name)
		},
	}, nil
}

// nameOf is what the user calls a pod's container.
func nameOf(pod *corev1.Pod) string {
	return cmp.Or(pod.Annotations[v1alpha1.ContainerNameAnnotation], pod.Name)
}

// find is a pod by its own name or by the one that it was given later.
func (c *Cluster) find(ctx context.Context, name string) (*corev1.Pod, error) {
	pods := c.Kube.CoreV1().Pods(c.Namespace)
	pod, err := pods.Get(ctx, name, metav1.GetOptions{})
	if err == nil {
		return pod, nil
	}
	if !apierrors.IsNotFound(err) && !apierrors.IsBadRequest(err) && !apierrors.IsInvalid(err) {
		return nil, fmt.Errorf("container %s: %w", name, err)
	}
	all, err := pods.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", name, err)
	}
	for i := range all.Items {
		if all.Items[i].Annotations[v1alpha1.ContainerNameAnnotation] == name {
			return &all.Items[i], nil
		}
	}
	return nil, fmt.Errorf("there is no container %q in namespace %s: \"lighter ps -a\" lists them", name, c.Namespace)
}

// PodOf is the name of the pod that find finds, or else the name itself.
func (c *Cluster) PodOf(ctx context.Context, name string) string {
	pod, err := c.find(ctx, name)
	if err != nil {
		return name
	}
	return pod.Name
}

// locate finds NAME or NAME/CONTAINER on its host.
func (c *Cluster) locate(ctx context.Context, name string) (agent *agentapi.ContainerClient, container string, err error) {
	name, container, _ = strings.Cut(name, "/")
	pod, err := c.find(ctx, name)
	if err != nil {
		return nil, "", err
	}
	if pod.Spec.NodeName == "" {
		return nil, "", fmt.Errorf("container %s has no host yet: %s", name, unscheduled(pod))
	}
	if container == "" && len(pod.Spec.Containers) > 1 {
		return nil, "", fmt.Errorf("pod %s has several containers: say which, as %s/%s", name, name, pod.Spec.Containers[0].Name)
	}
	agent, err = c.Containers(pod)
	return agent, cmp.Or(container, pod.Spec.Containers[0].Name), err
}

// each does the same to several containers, prints the names of those with which
// it went well, and joins the errors of the others.
func (c *Cluster) each(names []string, do func(name string) error) error {
	var errs []error
	for _, name := range names {
		if err := do(name); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(c.Out, name)
	}
	return errors.Join(errs...)
}

// follower sees the versions of one pod.
type follower struct {
	events watch.Interface
	// pod is the newest version; gone: it is deleted.
	pod  *corev1.Pod
	gone bool
}

// errGone ends the wait for a pod that was deleted.
var errGone = errors.New("the container was removed")

// follow begins to watch a pod. The caller stops it.
func (c *Cluster) follow(pod *corev1.Pod) *follower {
	only := fields.OneTermEqualSelector("metadata.name", pod.Name).String()
	pods := c.Kube.CoreV1().Pods(pod.Namespace)
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = only
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = only
			return pods.Watch(ctx, o)
		},
	}
	_, _, events, _ := watchtools.NewIndexerInformerWatcher(source, &corev1.Pod{})
	return &follower{events: events, pod: pod}
}

func (f *follower) stop() { f.events.Stop() }

// until waits until done is true of the pod. It returns errGone when the pod is
// deleted before that, unless done is true of its last version.
func (f *follower) until(ctx context.Context, done func(*corev1.Pod) (bool, error)) error {
	for {
		if ok, err := done(f.pod); ok || err != nil {
			return err
		}
		if f.gone {
			return errGone
		}
		if err := f.next(ctx); err != nil {
			return err
		}
	}
}

// next takes in one event.
func (f *follower) next(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case event, open := <-f.events.ResultChan():
		if !open {
			return errors.New("the watch on the container has ended")
		}
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			return apierrors.FromObject(event.Object)
		}
		switch {
		case pod.UID != f.pod.UID:
			f.gone = true // a namesake
		case event.Type == watch.Deleted:
			f.pod, f.gone = pod, true
		default:
			f.pod = pod
		}
		return nil
	}
}

// untilGone waits until the pod is deleted.
func (f *follower) untilGone(ctx context.Context) error {
	err := f.until(ctx, func(*corev1.Pod) (bool, error) { return false, nil })
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

// statusOf is that of the pod's (first) container; an empty one before it has any.
func statusOf(pod *corev1.Pod) corev1.ContainerStatus {
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == pod.Spec.Containers[0].Name {
			return status
		}
	}
	return corev1.ContainerStatus{}
}
