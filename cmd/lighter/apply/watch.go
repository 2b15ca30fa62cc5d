package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// watchRollouts returns when all Deployments among the objects are rolled out,
// and prints on the way what changes. It fails when one reports that it makes
// no progress, or when ctx ends; the error sums up what is wrong.
func watchRollouts(ctx context.Context, client kubernetes.Interface, objects []object, built digests, out io.Writer) error {
	var rollouts []*rollout
	changed := make(chan struct{}, 1)
	sources := map[string]*source{}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, o := range objects {
		if o.kind() != "deployment.apps" {
			continue
		}
		if sources[o.Namespace] == nil {
			s, err := newSource(ctx, client, o.Namespace, changed)
			if err != nil {
				return err
			}
			defer s.factory.Shutdown()
			defer cancel() // runs first: Shutdown waits for it
			sources[o.Namespace] = s
		}
		rollouts = append(rollouts, &rollout{name: o.Name, namespace: o.Namespace, source: sources[o.Namespace], shown: map[string]bool{}})
	}
	start := time.Now()
	for {
		pending, err := lookAt(rollouts, built, func(line string) {
			fmt.Fprintf(out, "%6.1f s  %s\n", time.Since(start).Seconds(), line)
		})
		if err != nil || pending == 0 {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return unfinished(rollouts, context.Cause(ctx))
		}
	}
}

// rollout is one Deployment that we follow.
type rollout struct {
	name, namespace string
	source          *source
	last            progress
	shown           map[string]bool // problems that have been printed
}

func lookAt(rollouts []*rollout, built digests, say func(line string)) (pending int, err error) {
	var failed []error
	for _, r := range rollouts {
		d, err := r.source.deployments.Deployments(r.namespace).Get(r.name)
		if err != nil { // not in the cache yet, or deleted meanwhile
			pending++
			continue
		}
		pods, err := r.source.pods.Pods(r.namespace).List(labels.Everything())
		if err != nil {
			return 0, err
		}
		now := judge(d, pods, built)
		if now.line != r.last.line {
			say(now.line)
		}
		for _, p := range now.problems {
			if key := p.pod + p.reason; !r.shown[key] {
				r.shown[key] = true
				say("  " + p.String())
			}
		}
		r.last = now
		switch {
		case now.failed != "":
			failed = append(failed, errors.New(now.failed))
		case !now.done:
			pending++
		}
	}
	if len(failed) > 0 {
		return 0, unfinished(rollouts, errors.Join(failed...))
	}
	return pending, nil
}

// unfinished sums up which Deployments did not make it and why.
func unfinished(rollouts []*rollout, cause error) error {
	var text strings.Builder
	for _, r := range rollouts {
		if r.last.done {
			continue
		}
		line := r.last.line
		if line == "" {
			line = fmt.Sprintf("deployment/%s: does not exist any more", r.name)
		}
		fmt.Fprintf(&text, "\n%s", line)
		for _, p := range r.last.problems {
			fmt.Fprintf(&text, "\n  %s\n    -> %s", p, p.hint)
		}
	}
	return fmt.Errorf("the rollout has not finished: %w%s", cause, text.String())
}

// source mirrors what we need of one namespace.
type source struct {
	factory     informers.SharedInformerFactory
	deployments appslisters.DeploymentLister
	pods        corelisters.PodLister
}

func newSource(ctx context.Context, client kubernetes.Interface, namespace string, changed chan<- struct{}) (*source, error) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace), informers.WithTransform(slim))
	kick := func(any) {
		select {
		case changed <- struct{}{}:
		default: // one is on its way already
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: kick, DeleteFunc: kick, UpdateFunc: func(_, now any) { kick(now) }}
	deployments, pods := factory.Apps().V1().Deployments(), factory.Core().V1().Pods()
	for _, informer := range []cache.SharedIndexInformer{deployments.Informer(), pods.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return nil, err
		}
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return nil, fmt.Errorf("watch %s in namespace %s: %w", kind, namespace, context.Cause(ctx))
		}
	}
	return &source{factory: factory, deployments: deployments.Lister(), pods: pods.Lister()}, nil
}

// slim drops what nobody here reads.
func slim(obj any) (any, error) {
	switch obj := obj.(type) {
	case *corev1.Pod:
		obj.ManagedFields = nil
	case *appsv1.Deployment:
		obj.ManagedFields = nil
	}
	return obj, nil
}
