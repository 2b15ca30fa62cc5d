package containers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"lighter.dev/lighter/api/v1alpha1"
)

// A named volume is a folder of one host: the one on which it was used first, which
// the scheduler chose, or the user. Containers that use it at the same time find one
// another by their label; for those that come when they are gone, a ConfigMap of the
// namespace remembers the host.
const (
	// volumeLabels are labels of pods, with the volume's name behind them.
	volumeLabels = "volumes." + v1alpha1.GroupName + "/"
	// volumeHosts is the ConfigMap: names of volumes, and their hosts.
	volumeHosts = "lighter-volumes"
)

// stayWith has the pod run where others are that use the volume. The first of them
// is its own neighbour, and so may run anywhere.
func stayWith(pod *corev1.Pod, volume string) {
	key := volumeLabels + volume
	if _, twice := pod.Labels[key]; twice {
		return
	}
	pod.Labels[key] = ""
	if pod.Spec.Affinity == nil {
		pod.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{}}
	}
	near := pod.Spec.Affinity.PodAffinity
	near.RequiredDuringSchedulingIgnoredDuringExecution = append(near.RequiredDuringSchedulingIgnoredDuringExecution, corev1.PodAffinityTerm{
		TopologyKey:   corev1.LabelHostname,
		LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: metav1.LabelSelectorOpExists}}},
	})
}

// volumesOf are the named volumes that a pod uses.
func volumesOf(pod *corev1.Pod) []string {
	var out []string
	for key := range pod.Labels {
		if name, is := strings.CutPrefix(key, volumeLabels); is {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// findVolumes sends a pod to the host of its volumes, if they have been used before.
func (c *Cluster) findVolumes(ctx context.Context, pod *corev1.Pod) error {
	names := volumesOf(pod)
	if len(names) == 0 {
		return nil
	}
	hosts, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).Get(ctx, volumeHosts, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("find volume %s: %w", names[0], err)
	}
	for _, name := range names {
		host := hosts.Data[name]
		if host == "" {
			continue
		}
		if err := checkVolume(name, host, pod.Spec.NodeSelector[corev1.LabelHostname]); err != nil {
			return err
		}
		pod.Spec.NodeSelector[corev1.LabelHostname] = host
	}
	return nil
}

// checkVolume refuses a host that is not the volume's; "" is any.
func checkVolume(name, host, want string) error {
	if host == cmp.Or(want, host) {
		return nil
	}
	return fmt.Errorf("volume %s lies on host %s, the container is to run on %s: leave --node out, or take other volumes (ConfigMap %s says where each lies)", name, host, want, volumeHosts)
}

// keepVolumes remembers where a pod's volumes lie. It is an error if one of them was
// made elsewhere meanwhile.
func (c *Cluster) keepVolumes(ctx context.Context, pod *corev1.Pod) error {
	names := volumesOf(pod)
	if len(names) == 0 {
		return nil
	}
	api := c.Kube.CoreV1().ConfigMaps(c.Namespace)
	changed := func(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }
	return retry.OnError(retry.DefaultBackoff, changed, func() error {
		hosts, err := api.Get(ctx, volumeHosts, metav1.GetOptions{})
		made := apierrors.IsNotFound(err)
		if made {
			hosts, err = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: volumeHosts}}, nil
		}
		if err != nil {
			return fmt.Errorf("remember where volume %s lies: %w", names[0], err)
		}
		if hosts.Data == nil {
			hosts.Data = map[string]string{}
		}
		known := len(hosts.Data)
		for _, name := range names {
			if err := checkVolume(name, cmp.Or(hosts.Data[name], pod.Spec.NodeName), pod.Spec.NodeName); err != nil {
				return err
			}
			hosts.Data[name] = pod.Spec.NodeName
		}
		switch {
		case made:
			_, err = api.Create(ctx, hosts, metav1.CreateOptions{})
		case len(hosts.Data) > known:
			_, err = api.Update(ctx, hosts, metav1.UpdateOptions{})
		}
		if err != nil {
			return fmt.Errorf("remember where volume %s lies: %w", names[0], err)
		}
		return nil
	})
}
