package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// Picture is what the streaming endpoints (logs, exec, attach, port-forward)
// and listings need to know of a pod. It never changes once it is published.
type Picture struct {
	Pod    *corev1.Pod
	Status corev1.PodStatus
	// NetNS is the path of the pod's network namespace, "" on the host's.
	NetNS string
	// Cgroup is the pod's cgroup, as in runtime.ContainerSpec.CgroupParent.
	Cgroup string
	// Address is the pod's primary IP, "" as long as it has none.
	Address    string
	Failed     bool
	Containers []ContainerPicture
}

// ContainerPicture is one container; an empty ID means that there is no such attempt.
type ContainerPicture struct {
	Name string
	// ID and LogPath are of the newest attempt, PreviousID and PreviousLogPath of the one before.
	ID, LogPath                 string
	PreviousID, PreviousLogPath string
	// RootFS names the newest attempt's file system in the image store.
	RootFS string
	// Running: one can attach to it.
	Running bool
	// TTY and Stdin are as in the spec, for attach.
	TTY, Stdin bool
}

// Pod finds a pod of this host by name. uid may be empty; otherwise it has to
// match. The error is an API NotFound.
func (m *Manager) Pod(namespace, name string, uid types.UID) (*Picture, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, w := range m.workers {
		p := w.picture.Load()
		if p == nil || uid != "" && id != uid {
			continue
		}
		if p.Pod.Namespace == namespace && p.Pod.Name == name {
			return p, nil
		}
	}
	return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
}

// Pods are all pods of this host.
func (m *Manager) Pods() []*Picture {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*Picture
	for _, w := range m.workers {
		if p := w.picture.Load(); p != nil {
			out = append(out, p)
		}
	}
	return out
}

// Container finds a container of the pod. An empty name means the only one.
func (p *Picture) Container(name string) (*ContainerPicture, error) {
	if name == "" && len(p.Containers) == 1 {
		return &p.Containers[0], nil
	}
	for i := range p.Containers {
		if p.Containers[i].Name == name {
			return &p.Containers[i], nil
		}
	}
	return nil, apierrors.NewBadRequest(fmt.Sprintf("container %q not found in pod %s/%s", name, p.Pod.Namespace, p.Pod.Name))
}

// takePicture is called by the worker after each look.
func (w *worker) takePicture(st *corev1.PodStatus) *Picture {
	p := &Picture{Pod: w.view.Pod, Status: *st, NetNS: w.box.spaces.Net, Cgroup: w.cgroup, Failed: w.st.Failed != nil}
	if ips := w.podIPs(); len(ips) > 0 {
		p.Address = ips[0].String()
	}
	for _, c := range w.st.Containers {
		cp := ContainerPicture{Name: c.Spec.Name, Running: c.running(), TTY: c.Spec.TTY, Stdin: c.Spec.Stdin}
		if c.Current != nil {
			cp.ID, cp.LogPath, cp.RootFS = c.Current.Spec.ID, c.Current.Spec.LogPath, c.Current.Spec.RootFSKey()
		}
		if c.Held != nil {
			cp.ID, cp.LogPath, cp.Running = c.Held.ID, c.Held.LogPath, true
		}
		if c.Last != nil {
			cp.PreviousID, cp.PreviousLogPath = c.Last.Spec.ID, c.Last.Spec.LogPath
		}
		p.Containers = append(p.Containers, cp)
	}
	return p
}
