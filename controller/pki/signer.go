package pki

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	certlisters "k8s.io/client-go/listers/certificates/v1"

	"lighter.dev/lighter/controller/reconcile"
)

const (
	reasonApproved = "AgentApproved"
	reasonDenied   = "AgentDenied"
	// signWorkers sign at a time; a whole cluster may join at once.
	signWorkers = 4
	// keepRequests is how long a request that is done with stays for people to see.
	keepRequests = time.Hour
)

// Signer approves, or denies with a reason, the certificate requests of agents
// and of hosts that join, and signs all approved requests of the signers
// kube-apiserver-client-kubelet, kubelet-serving and kube-apiserver-client.
// Requests of the last one are for people to approve.
type Signer struct {
	ca     *CA
	client kubernetes.Interface
	list   certlisters.CertificateSigningRequestLister
	runner *reconcile.Runner
	now    func() time.Time
}

// NewSigner registers with the informers, which the caller starts.
func NewSigner(ca *CA, client kubernetes.Interface, factory informers.SharedInformerFactory, log *slog.Logger) (*Signer, error) {
	requests := factory.Certificates().V1().CertificateSigningRequests()
	s := &Signer{ca: ca, client: client, list: requests.Lister(), now: time.Now}
	s.runner = reconcile.New("certificates", s.sync, log)
	handle, err := requests.Informer().AddEventHandler(s.runner.Handler())
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	s.runner.WaitFor(handle.HasSynced)
	return s, nil
}

// Run signs until ctx ends.
func (s *Signer) Run(ctx context.Context) error { return s.runner.Run(ctx, signWorkers) }

func (s *Signer) sync(ctx context.Context, name string) error {
	csr, err := s.list.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	approved, denied := verdict(csr)
	switch {
	case denied || len(csr.Status.Certificate) > 0:
		return s.expire(ctx, csr)
	case approved:
		return s.sign(ctx, csr.DeepCopy())
	}
	return s.decide(ctx, csr.DeepCopy())
}

// verdict reads what was decided.
func verdict(csr *certificatesv1.CertificateSigningRequest) (approved, denied bool) {
	for _, c := range csr.Status.Conditions {
		approved = approved || c.Type == certificatesv1.CertificateApproved
		denied = denied || c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed
	}
	return approved && !denied, denied
}

func (s *Signer) expire(ctx context.Context, csr *certificatesv1.CertificateSigningRequest) error {
	if left := keepRequests - s.now().Sub(csr.CreationTimestamp.Time); left > 0 {
		s.runner.EnqueueAfter(csr.Name, left)
		return nil
	}
	err := s.client.CertificatesV1().CertificateSigningRequests().Delete(ctx, csr.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(csr.UID))})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// decide approves or denies the requests of agents and signs at once what it
// approves: joining hosts wait for it.
func (s *Signer) decide(ctx context.Context, csr *certificatesv1.CertificateSigningRequest) error {
	_, err := s.examine(ctx, csr)
	if errors.Is(err, errNotOurs) {
		return nil
	}
	condition := certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue,
		Reason: reasonApproved, Message: "approved for an agent",
	}
	var denied *denial
	switch {
	case errors.As(err, &denied):
		condition.Type, condition.Reason, condition.Message = certificatesv1.CertificateDenied, reasonDenied, denied.Error()
	case err != nil:
		return err
	}
	csr.Status.Conditions = append(csr.Status.Conditions, condition)
	decided, err := s.client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{})
	if err != nil || denied != nil {
		return err
	}
	return s.sign(ctx, decided)
}

// denial is a decision, not a failure to decide.
type denial struct{ error }

// examine gathers the facts and applies the rules.
func (s *Signer) examine(ctx context.Context, csr *certificatesv1.CertificateSigningRequest) (Leaf, error) {
	switch csr.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.KubeletServingSignerName:
	default:
		return Leaf{}, errNotOurs
	}
	r, err := parseRequest(csr)
	if err != nil {
		return Leaf{}, &denial{err}
	}
	// Asked live, not from a cache: who a name belongs to may have changed just now.
	node, err := s.client.CoreV1().Nodes().Get(ctx, r.node(), metav1.GetOptions{})
	node, err = present(node, err)
	if err != nil {
		return Leaf{}, err
	}
	lease, err := s.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, r.node(), metav1.GetOptions{})
	lease, err = present[coordinationv1.Lease](lease, err)
	if err != nil {
		return Leaf{}, err
	}
	leaf, err := judge(r, facts{node: node, lease: lease, now: s.now()})
	if err != nil && !errors.Is(err, errNotOurs) {
		err = &denial{err}
	}
	return leaf, err
}

// present turns "not found" into nil. A name that cannot exist was not found either.
func present[T any](obj *T, err error) (*T, error) {
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return obj, nil
}

// sign issues the certificate of an approved request. People's approvals count
// too, so the leaf is what the request asks for, within its signer's usage.
func (s *Signer) sign(ctx context.Context, csr *certificatesv1.CertificateSigningRequest) error {
	r, err := parseRequest(csr)
	if err != nil {
		return reconcile.Final(err)
	}
	leaf := Leaf{
		CommonName: r.x509.Subject.CommonName, Organizations: r.x509.Subject.Organization,
		DNSNames: r.x509.DNSNames, IPs: r.x509.IPAddresses,
	}
	switch csr.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.KubeAPIServerClientSignerName:
		leaf.Client, leaf.DNSNames, leaf.IPs = true, nil, nil
	case certificatesv1.KubeletServingSignerName:
		leaf.Server = true
	default:
		return nil // another signer's
	}
	if csr.Spec.ExpirationSeconds != nil {
		leaf.Life = min(LeafLife, time.Duration(*csr.Spec.ExpirationSeconds)*time.Second)
	}
	if csr.Status.Certificate, err = s.ca.Sign(leaf, r.x509.PublicKey); err != nil {
		return err
	}
	_, err = s.client.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, csr, metav1.UpdateOptions{})
	return err
}
