package pki

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
)

const (
	nodePrefix        = "system:node:"
	nodesGroup        = "system:nodes"
	bootstrapperGroup = "system:bootstrappers:lighter"
	bootstrapperUser  = "system:bootstrap:"
)

// errNotOurs: the request is for people, or for another signer, to decide.
var errNotOurs = errors.New("not a request of an agent")

// request is what the rules look at.
type request struct {
	csr  *certificatesv1.CertificateSigningRequest
	x509 *x509.CertificateRequest
}

func parseRequest(csr *certificatesv1.CertificateSigningRequest) (request, error) {
	block, _ := pem.Decode(csr.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return request{}, errors.New("spec.request holds no PEM certificate request")
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return request{}, fmt.Errorf("spec.request: %w", err)
	}
	if err := parsed.CheckSignature(); err != nil {
		return request{}, fmt.Errorf("spec.request: %w", err)
	}
	return request{csr, parsed}, nil
}

// node is the node that the certificate would speak for.
func (r request) node() string { return strings.TrimPrefix(r.x509.Subject.CommonName, nodePrefix) }

// facts is what the cluster knows about the node of a request; nil is unknown.
type facts struct {
	node  *corev1.Node
	lease *coordinationv1.Lease
	now   time.Time
}

// judge decides about an agent's request: nil approves, errNotOurs leaves it
// alone, any other error is the reason to deny it. The leaf is what to sign.
func judge(r request, f facts) (Leaf, error) {
	leaf := Leaf{
		CommonName: r.x509.Subject.CommonName, Organizations: r.x509.Subject.Organization, Life: LeafLife,
		DNSNames: r.x509.DNSNames, IPs: r.x509.IPAddresses,
	}
	switch r.csr.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		leaf.Client = true
		return leaf, judgeClient(r, f)
	case certificatesv1.KubeletServingSignerName:
		leaf.Server = true
		return leaf, judgeServing(r, f)
	}
	return leaf, errNotOurs
}

func judgeSubject(r request) error {
	s := r.x509.Subject
	if !strings.HasPrefix(s.CommonName, nodePrefix) || r.node() == "" || !slices.Equal(s.Organization, []string{nodesGroup}) {
		return fmt.Errorf("the subject has to be CN=%s<node>, O=%s", nodePrefix, nodesGroup)
	}
	if len(r.x509.EmailAddresses)+len(r.x509.URIs) > 0 {
		return errors.New("e-mail addresses and URIs are not allowed")
	}
	return nil
}

// judgeClient: a node renews its own certificate, or a host with a join token
// asks for the first one, for a name that no living node has.
func judgeClient(r request, f facts) error {
	if err := judgeSubject(r); err != nil {
		return err
	}
	if len(r.x509.DNSNames)+len(r.x509.IPAddresses) > 0 {
		return errors.New("a client certificate has no names or addresses")
	}
	user := r.csr.Spec.Username
	switch {
	case user == r.x509.Subject.CommonName:
		return nil
	case !strings.HasPrefix(user, bootstrapperUser), !slices.Contains(r.csr.Spec.Groups, bootstrapperGroup):
		return fmt.Errorf("%s may not ask for a certificate of %s: use a join token", user, r.x509.Subject.CommonName)
	case alive(f):
		return fmt.Errorf("a node %s is in the cluster and alive: give this host another --node-name, or, if it is the same host and has lost its keys, stop its agent, run 'kubectl delete node %s' and join again", r.node(), r.node())
	}
	return nil
}

// alive: the node renewed its lease so lately that another host must be behind it.
func alive(f facts) bool {
	if f.node == nil || f.lease == nil || f.lease.Spec.RenewTime == nil {
		return false
	}
	const grace = 20 * time.Second
	return f.now.Sub(f.lease.Spec.RenewTime.Time) < grace
}

// judgeServing: a node asks for itself, for addresses that its Node object (which
// only it may write) names, if it exists yet.
func judgeServing(r request, f facts) error {
	if err := judgeSubject(r); err != nil {
		return err
	}
	if r.csr.Spec.Username != r.x509.Subject.CommonName {
		return fmt.Errorf("%s may not ask for a certificate of %s", r.csr.Spec.Username, r.x509.Subject.CommonName)
	}
	for _, name := range r.x509.DNSNames {
		if name != r.node() && name != "localhost" {
			return fmt.Errorf("%s is not the node's name", name)
		}
	}
	if f.node == nil || len(f.node.Status.Addresses) == 0 {
		return nil
	}
	for _, ip := range r.x509.IPAddresses {
		known := ip.IsLoopback() || slices.ContainsFunc(f.node.Status.Addresses, func(a corev1.NodeAddress) bool {
			return net.ParseIP(a.Address).Equal(ip)
		})
		if !known {
			return fmt.Errorf("%s is not an address of node %s", ip, r.node())
		}
	}
	return nil
}
