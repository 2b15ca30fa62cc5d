package pki

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

// signAll lets a signer look once at one request in a cluster with other objects,
// and returns what has become of it, or nil if it is gone.
func signAll(t *testing.T, a *Authority, now time.Time, csr *certificatesv1.CertificateSigningRequest, objects ...runtime.Object) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	client := fake.NewClientset(append(objects, csr)...)
	factory := informers.NewSharedInformerFactory(client, 0)
	s, err := NewSigner(a.CA, client, factory, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.now = func() time.Time { return now }
	ctx, cancel := context.WithCancel(t.Context())
	defer factory.Shutdown()
	defer cancel()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if err := s.sync(ctx, csr.Name); err != nil && !strings.Contains(err.Error(), "spec.request") {
		t.Fatal(err)
	}
	s.runner.ShutDown()
	after, err := client.CertificatesV1().CertificateSigningRequests().Get(ctx, csr.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return after
}

func TestSignsForAgents(t *testing.T) {
	a := open(t, testConfig(t))
	now := time.Now()
	day := int32(24 * 3600)
	for name, csr := range map[string]*certificatesv1.CertificateSigningRequest{
		"client":  ask(t, clientSigner, joiner, []string{bootstrapperGroup}, x509.CertificateRequest{Subject: nodeSubject("a")}),
		"serving": ask(t, servingSigner, nodePrefix+"a", nil, x509.CertificateRequest{Subject: nodeSubject("a"), DNSNames: []string{"a"}}),
	} {
		csr.CreationTimestamp, csr.Spec.ExpirationSeconds = metav1.NewTime(now), &day
		after := signAll(t, a, now, csr)
		if approved, _ := verdict(after); !approved {
			t.Errorf("%s: %+v", name, after.Status)
			continue
		}
		issued, err := parseCert(after.Status.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if err := issued.CheckSignatureFrom(a.Cert); err != nil {
			t.Error(err)
		}
		want := x509.ExtKeyUsageClientAuth
		if name == "serving" {
			want = x509.ExtKeyUsageServerAuth
		}
		if len(issued.ExtKeyUsage) != 1 || issued.ExtKeyUsage[0] != want || issued.IsCA {
			t.Errorf("%s: usage %v", name, issued.ExtKeyUsage)
		}
		if issued.Subject.String() != nodeSubject("a").String() {
			t.Errorf("%s: subject %s", name, issued.Subject)
		}
		if life := time.Until(issued.NotAfter); life < 23*time.Hour || life > 25*time.Hour {
			t.Errorf("%s: valid for %s, asked for a day", name, life)
		}
	}
}

func TestDenies(t *testing.T) {
	a := open(t, testConfig(t))
	now := time.Now()
	renewed := metav1.NewMicroTime(now.Add(-time.Second))
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: corev1.NamespaceNodeLease},
		Spec:       coordinationv1.LeaseSpec{RenewTime: &renewed},
	}
	csr := ask(t, clientSigner, joiner, []string{bootstrapperGroup}, x509.CertificateRequest{Subject: nodeSubject("a")})
	broken := csr.DeepCopy()
	broken.Spec.Request = []byte("rubbish")
	for name, test := range map[string]struct {
		csr  *certificatesv1.CertificateSigningRequest
		want string
	}{
		"a name in use": {csr, "alive"}, "rubbish": {broken, "no PEM"},
	} {
		after := signAll(t, a, now, test.csr, node, lease)
		approved, denied := verdict(after)
		if approved || !denied || len(after.Status.Certificate) > 0 {
			t.Errorf("%s: %+v", name, after.Status)
			continue
		}
		if c := after.Status.Conditions[0]; c.Reason != reasonDenied || !strings.Contains(c.Message, test.want) {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// TestForPeople: requests of users wait for a person, and are signed then.
func TestForPeople(t *testing.T) {
	a := open(t, testConfig(t))
	csr := ask(t, certificatesv1.KubeAPIServerClientSignerName, "eve", nil, x509.CertificateRequest{Subject: pkix.Name{CommonName: "eve"}, DNSNames: []string{"kubernetes"}})
	if after := signAll(t, a, time.Now(), csr); len(after.Status.Conditions) > 0 || len(after.Status.Certificate) > 0 {
		t.Errorf("decided without a person: %+v", after.Status)
	}
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
	after := signAll(t, a, time.Now(), csr)
	issued, err := parseCert(after.Status.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if issued.Subject.CommonName != "eve" || len(issued.DNSNames) > 0 || issued.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("issued %s %v %v", issued.Subject, issued.DNSNames, issued.ExtKeyUsage)
	}
	csr.Spec.SignerName = "example.com/other"
	if after := signAll(t, a, time.Now(), csr); len(after.Status.Certificate) > 0 {
		t.Error("signed for another signer")
	}
}

func TestExpires(t *testing.T) {
	a := open(t, testConfig(t))
	now := time.Now()
	for name, test := range map[string]struct {
		status certificatesv1.CertificateSigningRequestStatus
		age    time.Duration
		gone   bool
	}{
		"signed, fresh": {certificatesv1.CertificateSigningRequestStatus{Certificate: []byte("x")}, time.Minute, false},
		"signed, old":   {certificatesv1.CertificateSigningRequestStatus{Certificate: []byte("x")}, 2 * keepRequests, true},
		"denied, old": {certificatesv1.CertificateSigningRequestStatus{Conditions: []certificatesv1.CertificateSigningRequestCondition{
			{Type: certificatesv1.CertificateDenied, Status: corev1.ConditionTrue},
		}}, 2 * keepRequests, true},
	} {
		csr := ask(t, clientSigner, joiner, nil, x509.CertificateRequest{Subject: nodeSubject("a")})
		csr.CreationTimestamp, csr.Status = metav1.NewTime(now.Add(-test.age)), test.status
		if gone := signAll(t, a, now, csr) == nil; gone != test.gone {
			t.Errorf("%s: gone is %t", name, gone)
		}
	}
}
