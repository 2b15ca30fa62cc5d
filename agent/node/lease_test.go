package node

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
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
