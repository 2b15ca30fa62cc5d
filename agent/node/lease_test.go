package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// held is n1's Lease in another agent's hands, renewed some time ago.
func held(ago time.Duration) *coordinationv1.Lease {
	holder, seconds, renewed := "n1_another", int32(5), metav1.NewMicroTime(time.Now().Add(-ago))
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Namespace: corev1.NamespaceNodeLease},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &renewed},
	}
}

// TestClaim: a host that comes back without its data directory gets its name when
// the Lease of its former life runs out; a name that is in use it does not get.
func TestClaim(t *testing.T) {
	for name, c := range map[string]struct {
		ago     time.Duration // since the other agent's renewal
		renewed bool          // again, by the other agent, a second later
		after   time.Duration // when claim ends, to the second
		err     error
	}{
		"held by one long dead":     {ago: 6 * time.Second},
		"held by one that died now": {after: 5 * time.Second},
		"held by one that is alive": {renewed: true, after: time.Second, err: ErrNameTaken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, fake.NewClientset(held(c.ago)))
				if c.renewed {
					time.AfterFunc(time.Second, func() {
						if _, err := n.cfg.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Update(t.Context(), held(0), metav1.UpdateOptions{}); err != nil {
							t.Error(err)
						}
					})
				}
				start := time.Now()
				err := n.claim(t.Context())
				if took := time.Since(start).Truncate(time.Second); !errors.Is(err, c.err) || took != c.after {
					t.Errorf("after %v: %v", took, err)
				}
				lease, getErr := n.cfg.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(t.Context(), "n1", metav1.GetOptions{})
				if getErr != nil {
					t.Fatal(getErr)
				}
				if (*lease.Spec.HolderIdentity == n.holder()) != (err == nil) {
					t.Errorf("held by %s after claim: %v", *lease.Spec.HolderIdentity, err)
				}
			})
		})
	}
}

// TestLeaseGoesWithItsNode: the Lease names its Node as its owner, until it has
// been deleted with it: an agent that lives on must not have it deleted again
// and again.
func TestLeaseGoesWithItsNode(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("create", "nodes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		action.(clienttesting.CreateAction).GetObject().(*corev1.Node).UID = "first"
		return false, nil, nil
	})
	n := newNode(t, client)
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	for _, step := range []func(context.Context) error{n.claim, n.register} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	renew := func(have *coordinationv1.Lease) *coordinationv1.Lease {
		t.Helper()
		lease, err := n.renew(t.Context(), have, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return lease
	}
	lease := renew(nil)
	if owners := lease.OwnerReferences; len(owners) != 1 || owners[0].UID != "first" || owners[0].Kind != "Node" || owners[0].Name != "n1" {
		t.Errorf("owners %+v", owners)
	}
	if err := leases.Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.renew(t.Context(), lease, time.Minute); !apierrors.IsNotFound(err) {
		t.Errorf("renewed a Lease that is gone: %v", err)
	}
	if owners := renew(renew(nil)).OwnerReferences; len(owners) != 0 {
		t.Errorf("a Lease of no Node has owners %+v", owners)
	}
	// The next start registers anew.
	if err := n.register(t.Context()); err != nil {
		t.Fatal(err)
	}
	if owners := renew(nil).OwnerReferences; len(owners) != 1 || owners[0].UID != "first" {
		t.Errorf("owners after a restart %+v", owners)
	}
}
