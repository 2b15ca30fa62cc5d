package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// identityFile, in the data directory, makes this agent recognisable.
const identityFile = "agent-id"

// loadIdentity reads or makes the agent's ID. It is not the machine's ID: two
// agents may share a machine (lighter local), and copied machines share an ID.
func loadIdentity(dir string) (string, error) {
	path := filepath.Join(dir, identityFile)
	raw, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(raw)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read agent identity: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make data directory: %w", err)
	}
	id := uuid.NewString()
	if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write agent identity: %w", err)
	}
	return id, nil
}

// holder is what this agent writes into its Lease.
func (n *Node) holder() string { return n.cfg.Name + "_" + n.identity }

// claim takes the Lease over, unless somebody else holds it and is alive. Whoever
// renewed it a moment ago may be this host before it lost its data directory, or
// the one whose place it takes: then the Lease runs out unless it is renewed.
func (n *Node) claim(ctx context.Context) error {
	leases := n.cfg.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	have, err := leases.Get(ctx, n.cfg.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err := leases.Create(ctx, n.lease(nil, time.Now()), metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return fmt.Errorf("get lease of node %s: %w", n.cfg.Name, err)
	}
	if n.taken(have, time.Now()) != nil {
		n.cfg.Log.Info("The node's name was in use a moment ago, will see whether it still is", "holder", *have.Spec.HolderIdentity)
		if have, err = n.outlast(ctx, have); err != nil {
			return err
		}
	}
	_, err = leases.Update(ctx, n.lease(have, time.Now()), metav1.UpdateOptions{})
	return err
}

// outlast waits until a Lease of somebody else has run out. It returns
// ErrNameTaken if that one renews it instead.
func (n *Node) outlast(ctx context.Context, first *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryPause):
		}
		have, err := n.cfg.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, n.cfg.Name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("get lease of node %s: %w", n.cfg.Name, err)
		}
		switch err := n.taken(have, time.Now()); {
		case err == nil:
			return have, nil
		case !have.Spec.RenewTime.Equal(first.Spec.RenewTime):
			return nil, err
		}
	}
}

// taken tells whether another agent holds the Lease and renewed it recently.
func (n *Node) taken(have *coordinationv1.Lease, now time.Time) error {
	holder := have.Spec.HolderIdentity
	if holder == nil || *holder == n.holder() || have.Spec.RenewTime == nil {
		return nil
	}
	valid := n.cfg.LeaseDuration
	if have.Spec.LeaseDurationSeconds != nil {
		valid = time.Duration(*have.Spec.LeaseDurationSeconds) * time.Second
	}
	age := now.Sub(have.Spec.RenewTime.Time)
	if age > valid {
		return nil
	}
	return fmt.Errorf("%w: %q is held by %q, which renewed its lease %v ago; give this host another name (--node-name), or stop the other agent",
		ErrNameTaken, n.cfg.Name, *holder, age.Round(100*time.Millisecond))
}

// lease is the Lease as it should be, based on the one that exists.
func (n *Node) lease(have *coordinationv1.Lease, now time.Time) *coordinationv1.Lease {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: n.cfg.Name, Namespace: corev1.NamespaceNodeLease}}
	if have != nil {
		lease = have.DeepCopy()
	}
	holder, seconds, renewed := n.holder(), int32(n.cfg.LeaseDuration/time.Second), metav1.NewMicroTime(now)
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &holder, &seconds, &renewed
	if owner := n.owner.Load(); owner != nil {
		lease.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	return lease
}

// ownerOf makes a Lease go when its Node is deleted.
func ownerOf(node *corev1.Node) *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
}

// retryPause is how soon a failed renewal is tried again: a host has little time
// to show that it lives.
const retryPause = 250 * time.Millisecond

// keepLease renews until ctx ends. It returns ErrNameTaken only. The first
// attempt after a success has to be answered before the next one is due; those
// after a failure get a new connection, and time.
func (n *Node) keepLease(ctx context.Context) error {
	var have *coordinationv1.Lease
	var outage *time.Time // since when renewals fail; nil: they do not
	for {
		start, limit, pause := time.Now(), n.cfg.LeaseInterval, n.cfg.LeaseInterval
		if outage != nil {
			limit = n.cfg.LeaseDuration
		}
		next, err := n.renew(ctx, have, limit)
		switch {
		case errors.Is(err, ErrNameTaken):
			return err
		case err != nil:
			pause = min(pause, retryPause)
			if outage == nil && ctx.Err() == nil {
				n.cfg.Log.Warn("Cannot renew the node's lease, will go on trying", "err", err)
				outage = &start
			}
			n.cfg.DropLease()
		case outage != nil:
			n.backAgain(time.Since(*outage))
			outage = nil
		}
		have = next
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause - min(pause, time.Since(start))):
		}
	}
}

// backAgain ends an outage.
func (n *Node) backAgain(after time.Duration) {
	n.cfg.Log.Info("Renewed the node's lease again", "after", after.Round(time.Millisecond))
	if after >= n.cfg.LeaseDuration/2 {
		n.cfg.Back()
	}
	n.Trigger() // the node may count as lost meanwhile
}

// renew writes the Lease once; nil means that it has to be read again first.
func (n *Node) renew(ctx context.Context, have *coordinationv1.Lease, limit time.Duration) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	leases := n.cfg.LeaseClient.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	if have == nil {
		found, err := leases.Get(ctx, n.cfg.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			n.owner.Store(nil) // it went with its Node: one that names that Node would go again
			return leases.Create(ctx, n.lease(nil, time.Now()), metav1.CreateOptions{})
		}
		if err != nil {
			return nil, err
		}
		have = found
	}
	if err := n.taken(have, time.Now()); err != nil {
		return nil, err
	}
	now, err := leases.Update(ctx, n.lease(have, time.Now()), metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	return now, nil
}
