package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

// Remove takes names away from images, and removes images that have no other.
// Each one is tried; the error has them all.
func (c *Cluster) Remove(ctx context.Context, refs []string, force bool) error {
	var errs []error
	for _, ref := range refs {
		if err := c.remove(ctx, ref, force); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", ref, err))
		}
	}
	return errors.Join(errs...)
}

func (c *Cluster) remove(ctx context.Context, ref string, force bool) error {
	rows, err := c.rows(ctx, false)
	if err != nil {
		return err
	}
	found, err := pick(rows, ref)
	if err != nil {
		return err
	}
	going := slices.DeleteFunc(matching(rows, ref), func(row Row) bool { return row.Digest != found.Digest })
	if len(going) > 1 && !force {
		var names []string
		for _, row := range going {
			names = append(names, row.title())
		}
		return fmt.Errorf("the image has several names (%s): remove them by name, or all with -f", strings.Join(names, ", "))
	}
	for _, row := range going {
		if !force && !c.alone() { // alone, the agent refuses what its own containers use
			if err := c.refuse(ctx, rows, row); err != nil {
				return err
			}
		}
		if err := c.removeRow(ctx, row, force); err != nil {
			return err
		}
	}
	left := slices.ContainsFunc(rows, func(row Row) bool { return row.Digest == found.Digest && !contains(going, row) })
	if !left && found.Object != "" && found.Digest != "" && found.Containers == 0 {
		fmt.Fprintln(c.Out, "Deleted:", found.Digest)
	}
	return nil
}

func contains(rows []Row, row Row) bool {
	return slices.ContainsFunc(rows, func(r Row) bool { return r.Name == row.Name && r.Object == row.Object })
}

// refuse is Docker's rule for what was pulled: the last name of an image that a
// container uses, running or stopped, stays. A name that an object declares stays
// while a pod may want it, as pods find the content by it.
func (c *Cluster) refuse(ctx context.Context, rows []Row, row Row) error {
	if row.Object == "" && (row.Containers == 0 || namedBeside(rows, row)) {
		return nil
	}
	pods, err := c.Kube.CoreV1().Pods(c.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	users := usersOf(pods.Items, row)
	switch {
	case len(users) > 0:
		return fmt.Errorf("running pods use it: %s; delete them first, or remove it all the same with -f", strings.Join(users, ", "))
	case row.Object == "":
		return fmt.Errorf("%d containers of other pods use it, on %s; remove them first, or take the name away all the same with -f", row.Containers, strings.Join(row.Hosts, ", "))
	}
	return nil
}

// namedBeside tells whether another pulled name leads to the same content on all hosts
// that have it under this one.
func namedBeside(rows []Row, row Row) bool {
	missing := func(other Row) bool {
		return slices.ContainsFunc(row.Hosts, func(host string) bool { return !slices.Contains(other.Hosts, host) })
	}
	return slices.ContainsFunc(rows, func(r Row) bool {
		return r.Object == "" && r.Name != "" && r.Name != row.Name && r.Digest == row.Digest && !missing(r)
	})
}

func (c *Cluster) removeRow(ctx context.Context, row Row, force bool) error {
	if row.Object != "" {
		return c.removeDeclared(ctx, row)
	}
	return c.removePulled(ctx, row, force)
}

// removeDeclared takes a name away from its object; the last one with the object.
func (c *Cluster) removeDeclared(ctx context.Context, row Row) error {
	api := c.Lighter.LighterV1alpha1().Images(row.Namespace)
	image, err := api.Get(ctx, row.Object, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if len(image.Spec.Tags) > 1 {
		err = c.untag(ctx, image, row.Name)
	} else {
		err = api.Delete(ctx, image.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &image.UID, ResourceVersion: &image.ResourceVersion}})
	}
	if apierrors.IsConflict(err) {
		return fmt.Errorf("it has changed meanwhile, try again: %w", err)
	}
	if err == nil {
		fmt.Fprintln(c.Out, "Untagged:", shortName(row.Name))
	}
	return err
}

// removePulled removes a name from all hosts that hold it.
func (c *Cluster) removePulled(ctx context.Context, row Row, force bool) error {
	ref := row.Name
	if ref == "" {
		ref = row.Digest
	}
	var mu sync.Mutex
	var gone agentapi.Removed
	failed := c.each(ctx, row.Hosts, func(ctx context.Context, _ string, agent *agentapi.Client) error {
		removed, err := agent.Remove(ctx, ref, force)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		gone.Untagged = append(gone.Untagged, removed.Untagged...)
		gone.Deleted = append(gone.Deleted, removed.Deleted...)
		return nil
	})
	c.tell(gone)
	if len(failed) > 0 {
		return sameForAll(failed, len(row.Hosts))
	}
	return nil
}

// tell prints once what went on any number of hosts.
func (c *Cluster) tell(gone agentapi.Removed) {
	slices.Sort(gone.Untagged)
	slices.Sort(gone.Deleted)
	for _, name := range slices.Compact(gone.Untagged) {
		fmt.Fprintln(c.Out, "Untagged:", shortName(name))
	}
	for _, digest := range slices.Compact(gone.Deleted) {
		fmt.Fprintln(c.Out, "Deleted:", digest)
	}
}

// usersOf are the pods that run an image and will want it again when one of
// their containers starts anew.
func usersOf(pods []corev1.Pod, row Row) []string {
	var users []string
	for i := range pods {
		pod := &pods[i]
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		if slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(container corev1.Container) bool {
			return uses(pod, container.Image, row)
		}) {
			users = append(users, pod.Name)
		}
	}
	slices.Sort(users)
	return users
}

// uses tells whether a pod means a row by an image's name: by name, if it is not
// pinned to another version, or by digest.
func uses(pod *corev1.Pod, image string, row Row) bool {
	if _, digest, pinned := strings.Cut(image, "@"); pinned {
		return digest == row.Digest && row.Name == ""
	}
	name, err := v1alpha1.NormalizeTag(image)
	if err != nil || name != row.Name {
		return false
	}
	pins := map[string]string{}
	_ = json.Unmarshal([]byte(pod.Annotations[v1alpha1.DigestsAnnotation]), &pins) // without pins the name decides
	pin := pins[name]
	return pin == "" || pin == row.Digest
}
