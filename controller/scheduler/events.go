package scheduler

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"lighter.dev/lighter/controller/reconcile"
	"lighter.dev/lighter/controller/scheduler/model"
)

func (s *Scheduler) namespaceEvents() cache.ResourceEventHandler {
	set := func(obj any) {
		if namespace, ok := obj.(*corev1.Namespace); ok {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.cluster.SetNamespace(namespace.Name, namespace.Labels)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    set,
		UpdateFunc: func(_, obj any) { set(obj) },
		DeleteFunc: func(obj any) {
			if namespace, ok := reconcile.Object[*corev1.Namespace](obj); ok {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.cluster.RemoveNamespace(namespace.Name)
			}
		},
	}
}

func (s *Scheduler) nodeEvents() cache.ResourceEventHandler {
	set := func(obj any) {
		if node, ok := obj.(*corev1.Node); ok {
			s.mu.Lock()
			change := s.cluster.SetNode(node)
			s.mu.Unlock()
			s.queue.Changed(change)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    set,
		UpdateFunc: func(_, obj any) { set(obj) },
		DeleteFunc: func(obj any) {
			if node, ok := reconcile.Object[*corev1.Node](obj); ok {
				s.mu.Lock()
				s.cluster.RemoveNode(node.Name)
				s.mu.Unlock()
				// Fewer nodes may mean a smaller skew.
				s.queue.Changed(model.NodeLabels)
			}
		},
	}
}

func (s *Scheduler) podEvents() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if pod, ok := obj.(*corev1.Pod); ok {
				s.podSeen(nil, pod)
			}
		},
		UpdateFunc: func(old, obj any) {
			was, wasPod := old.(*corev1.Pod)
			pod, ok := obj.(*corev1.Pod)
			if ok && wasPod {
				s.podSeen(was, pod)
			}
		},
		DeleteFunc: func(obj any) {
			if pod, ok := reconcile.Object[*corev1.Pod](obj); ok {
				s.podGone(pod)
			}
		},
	}
}

// podSeen takes a new state of a pod over; was is nil for a new pod.
func (s *Scheduler) podSeen(was, pod *corev1.Pod) {
	if was != nil && was.UID != pod.UID {
		s.podGone(was) // a deletion and a creation seen as one event
		was = nil
	}
	switch {
	case hasEnded(pod):
		s.podGone(pod)
	case pod.Spec.NodeName != "":
		s.queue.Forget(pod.UID)
		s.podPlaced(was, pod)
	case !isOurs(pod):
		s.queue.Forget(pod.UID)
	case was != nil && isOurs(was) && sameWishes(was, pod):
		s.queue.Touch(pod)
	default:
		s.queue.Add(model.NewPod(pod))
	}
}

// podPlaced accounts for a pod on a node. For most events of running pods, a
// new status, there is nothing to do.
func (s *Scheduler) podPlaced(was, pod *corev1.Pod) {
	s.mu.Lock()
	known, node := s.cluster.Placed(pod.UID)
	if known != nil && node == pod.Spec.NodeName && sameWishes(known.Object, pod) {
		known.Object = pod
		s.mu.Unlock()
		if was == nil || was.Spec.NodeName == "" {
			s.queue.Changed(model.PodHere)
		}
		return
	}
	s.cluster.Place(model.NewPod(pod), pod.Spec.NodeName)
	s.mu.Unlock()
	change := model.PodHere
	if known != nil {
		change |= model.PodGone // it may use less now, or left another node
	}
	s.queue.Changed(change)
}

func (s *Scheduler) podGone(pod *corev1.Pod) {
	s.queue.Forget(pod.UID)
	s.mu.Lock()
	placed := s.cluster.Remove(pod.UID)
	s.mu.Unlock()
	if placed {
		s.queue.Changed(model.PodGone)
	}
}

// sameWishes tells whether two states of a pod are the same to every decision.
// metadata.generation counts changes of the specification.
func sameWishes(a, b *corev1.Pod) bool {
	return a.Generation == b.Generation && len(a.Spec.SchedulingGates) == len(b.Spec.SchedulingGates) &&
		(a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) && maps.Equal(a.Labels, b.Labels)
}
