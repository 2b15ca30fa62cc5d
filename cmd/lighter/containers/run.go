package containers

import (
	"context"
	"errors"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// madeUpTries bounds the search for a name that is free.
const madeUpTries = 10

// portTries bounds the search for ports of a host that are free.
const portTries = 5

// Run makes a container and, unless it is detached, stays with it until its end,
// and returns its exit code. A container that cannot run is taken away again.
func (c *Cluster) Run(ctx context.Context, o Options) (code int, err error) {
	if err := o.checkTerminal(c.In); err != nil {
		return codeEngine, err
	}
	if err := c.checkNode(ctx, o.Node); err != nil {
		return codeEngine, err
	}
	if _, err := os.Lstat(o.CIDFile); err == nil {
		return codeEngine, fmt.Errorf("--cidfile: %s is there already: remove it, or the container in it, or choose another", o.CIDFile)
	}
	for try := 1; ; try++ {
		code, err = c.run(ctx, o)
		var refused *refusal
		if !errors.As(err, &refused) || !refused.ports || !o.Network.choosesPorts() || try == portTries {
			return code, err
		}
	}
}

func (c *Cluster) run(ctx context.Context, o Options) (code int, err error) {
	pod, err := o.Pod(c.Namespace)
	if err != nil {
		return codeEngine, err
	}
	if err := c.findVolumes(ctx, pod); err != nil {
		return codeEngine, err
	}
	if pod, err = c.create(ctx, pod); err != nil {
		return codeEngine, err
	}
	f := c.follow(pod)
	defer f.stop()
	at, err := c.awaitBegin(ctx, f, "")
	if err != nil {
		return c.takeBack(ctx, f.pod, err)
	}
	if err := c.keepVolumes(context.WithoutCancel(ctx), f.pod); err != nil {
		return c.takeBack(ctx, f.pod, err)
	}
	if o.CIDFile != "" {
		if err := os.WriteFile(o.CIDFile, []byte(pod.Name), 0o644); err != nil {
			return c.takeBack(ctx, f.pod, fmt.Errorf("--cidfile: %w", err))
		}
	}
	if o.Detach {
		fmt.Fprintln(c.Out, pod.Name)
		return 0, nil
	}
	// From here on signals are the container's.
	ctx = context.WithoutCancel(ctx)
	code, err = c.stay(ctx, f, at, "", streams{stdin: o.Stdin, tty: o.TTY})
	var refused *refusal
	if errors.As(err, &refused) {
		return c.takeBack(ctx, f.pod, refused)
	}
	return code, err
}

// create makes the pod, and the secret with which it pulls if there is a login.
func (c *Cluster) create(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	secret, err := c.pullSecret(ctx, pod)
	if err != nil {
		return nil, err
	}
	made, err := c.createNamed(ctx, pod)
	if err != nil {
		return nil, errors.Join(err, c.dropSecret(context.WithoutCancel(ctx), secret))
	}
	return made, c.giveSecret(ctx, secret, made)
}

func (c *Cluster) createNamed(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	pods := c.Kube.CoreV1().Pods(c.Namespace)
	if pod.Name != "" {
		made, err := pods.Create(ctx, pod, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("there is a pod %s in namespace %s already: take it away (lighter rm %s) or choose another --name", pod.Name, c.Namespace, pod.Name)
		}
		return made, err
	}
	var err error
	for range madeUpTries {
		pod.Name = madeUp()
		var made *corev1.Pod
		if made, err = pods.Create(ctx, pod, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
			return made, err
		}
	}
	return nil, err
}

// checkNode says of a host that does not exist what the scheduler would not.
func (c *Cluster) checkNode(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	_, err := c.Kube.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("--node: there is no host %s (lighter get nodes lists them)", name)
	}
	return nil // who may not read nodes hears of it from the scheduler
}

// awaitBegin waits until the attempt after before runs or awaits a client, and
// shows what it waits for.
func (c *Cluster) awaitBegin(ctx context.Context, f *follower, before string) (at stage, err error) {
	line := newProgress(c.Err)
	defer line.end()
	events, cancel := context.WithCancel(ctx)
	defer cancel()
	go c.watchEvents(events, f.pod, line)
	err = f.until(ctx, func(pod *corev1.Pod) (bool, error) {
		var doing string
		var err error
		at, doing, err = stageOf(pod, before)
		line.show(doing, false)
		return at != underWay, err
	})
	return at, err
}

// takeBack removes what did not come to run.
func (c *Cluster) takeBack(ctx context.Context, pod *corev1.Pod, cause error) (int, error) {
	code := codeEngine
	var refused *refusal
	if errors.As(cause, &refused) {
		code = refused.code
	}
	ctx = context.WithoutCancel(ctx) // it may have been interrupted
	if err := c.delete(ctx, pod, 0); err != nil {
		return code, errors.Join(fmt.Errorf("container %s: %w", nameOf(pod), cause), err)
	}
	return code, fmt.Errorf("container %s: %w", nameOf(pod), cause)
}

// stay attaches to a container and returns its exit code. before is the attempt
// before the one that is meant. The error is a refusal if there was nothing to run.
func (c *Cluster) stay(ctx context.Context, f *follower, at stage, before string, s streams) (int, error) {
	if at == awaits {
		ctx, leave := context.WithCancelCause(ctx)
		defer leave(nil)
		if !s.tty {
			defer c.forwardSignals(ctx, f.pod, leave)()
		}
		err := c.attach(ctx, f.pod, s)
		if errors.Is(err, errDetached) {
			return 0, nil
		}
		if err != nil {
			return codeEngine, fmt.Errorf("attach to container %s: %w", nameOf(f.pod), err)
		}
	}
	var end *corev1.ContainerStateTerminated
	err := f.until(ctx, func(pod *corev1.Pod) (bool, error) {
		end = endOf(pod, before)
		return end != nil, nil
	})
	switch {
	case err != nil:
		return codeEngine, fmt.Errorf("container %s: %w", nameOf(f.pod), err)
	case end.Reason == "StartError":
		refused := notStarted(end.Message)
		return refused.code, refused
	}
	return int(end.ExitCode), nil
}

// endOf is how the newest attempt ended, nil as long as it runs.
func endOf(pod *corev1.Pod, before string) *corev1.ContainerStateTerminated {
	status := statusOf(pod)
	end := status.State.Terminated
	if end == nil {
		// One that is started again right away may be seen in its next attempt only.
		end = status.LastTerminationState.Terminated
	}
	if end == nil || end.ContainerID == before {
		return nil
	}
	return end
}
