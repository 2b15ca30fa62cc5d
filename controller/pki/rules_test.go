package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	clientSigner  = certificatesv1.KubeAPIServerClientKubeletSignerName
	servingSigner = certificatesv1.KubeletServingSignerName
	joiner        = bootstrapperUser + "abcdef"
)

// ask is a request as an API object.
func ask(t *testing.T, signer, user string, groups []string, template x509.CertificateRequest) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "csr", UID: "1"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: signer, Username: user, Groups: groups,
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		},
	}
}

func nodeSubject(name string) pkix.Name {
	return pkix.Name{CommonName: nodePrefix + name, Organization: []string{nodesGroup}}
}

func TestJudge(t *testing.T) {
	now := time.Now()
	node := &corev1.Node{Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.7"}}}}
	lease := func(age time.Duration) *coordinationv1.Lease {
		renewed := metav1.NewMicroTime(now.Add(-age))
		return &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{RenewTime: &renewed}}
	}
	joining, self := []string{bootstrapperGroup, "system:authenticated"}, nodePrefix+"a"
	plain := x509.CertificateRequest{Subject: nodeSubject("a")}
	serving := func(names []string, ips ...string) x509.CertificateRequest {
		r := x509.CertificateRequest{Subject: nodeSubject("a"), DNSNames: names}
		for _, ip := range ips {
			r.IPAddresses = append(r.IPAddresses, net.ParseIP(ip))
		}
		return r
	}
	for _, test := range []struct {
		name, signer, user string
		groups             []string
		request            x509.CertificateRequest
		facts              facts
		want               string // part of the denial; "" approves
	}{
		{"join", clientSigner, joiner, joining, plain, facts{}, ""},
		{"join under the name of a node without a lease", clientSigner, joiner, joining, plain, facts{node: node}, ""},
		{"join under the name of a node long silent", clientSigner, joiner, joining, plain, facts{node: node, lease: lease(time.Minute)}, ""},
		{"join where a lease is left but no node", clientSigner, joiner, joining, plain, facts{lease: lease(time.Second)}, ""},
		{"join under the name of a living node", clientSigner, joiner, joining, plain, facts{node: node, lease: lease(time.Second)}, "kubectl delete node a"},
		{"renewal", clientSigner, self, []string{nodesGroup}, plain, facts{node: node, lease: lease(0)}, ""},
		{"one node for another", clientSigner, nodePrefix + "b", []string{nodesGroup}, plain, facts{}, "use a join token"},
		{"a person", clientSigner, "eve", joining, plain, facts{}, "use a join token"},
		{"a token for something else", clientSigner, joiner, []string{"system:bootstrappers:other"}, plain, facts{}, "use a join token"},
		{"no node's subject", clientSigner, joiner, joining, x509.CertificateRequest{Subject: pkix.Name{CommonName: "admin", Organization: []string{nodesGroup}}}, facts{}, "subject"},
		{"an empty node name", clientSigner, joiner, joining, x509.CertificateRequest{Subject: nodeSubject("")}, facts{}, "subject"},
		{"another group", clientSigner, joiner, joining, x509.CertificateRequest{Subject: pkix.Name{CommonName: self, Organization: []string{AdminGroup}}}, facts{}, "subject"},
		{"one group too many", clientSigner, joiner, joining, x509.CertificateRequest{Subject: pkix.Name{CommonName: self, Organization: []string{nodesGroup, AdminGroup}}}, facts{}, "subject"},
		{"no group", clientSigner, joiner, joining, x509.CertificateRequest{Subject: pkix.Name{CommonName: self}}, facts{}, "subject"},
		{"a client with a name", clientSigner, joiner, joining, serving([]string{"a"}), facts{}, "no names or addresses"},
		{"a client with an address", clientSigner, joiner, joining, serving(nil, "10.0.0.7"), facts{}, "no names or addresses"},
		{"an e-mail address", clientSigner, joiner, joining, x509.CertificateRequest{Subject: nodeSubject("a"), EmailAddresses: []string{"a@b.c"}}, facts{}, "e-mail"},
		{"a URI", servingSigner, self, nil, x509.CertificateRequest{Subject: nodeSubject("a"), URIs: []*url.URL{{Scheme: "spiffe", Host: "x"}}}, facts{}, "URIs"},

		{"serving before the node exists", servingSigner, self, nil, serving([]string{"a", "localhost"}, "10.0.0.7", "127.0.0.1"), facts{}, ""},
		{"serving at the node's address", servingSigner, self, nil, serving([]string{"a"}, "10.0.0.7", "::1"), facts{node: node}, ""},
		{"serving at another address", servingSigner, self, nil, serving([]string{"a"}, "10.0.0.8"), facts{node: node}, "10.0.0.8 is not an address of node a"},
		{"serving under another name", servingSigner, self, nil, serving([]string{"kubernetes"}), facts{}, "kubernetes is not the node's name"},
		{"serving for another node", servingSigner, nodePrefix + "b", nil, serving([]string{"a"}), facts{}, "may not ask"},
		{"serving with a join token", servingSigner, joiner, joining, serving([]string{"a"}), facts{}, "may not ask"},
		{"serving as somebody", servingSigner, self, nil, x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, facts{}, "subject"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := parseRequest(ask(t, test.signer, test.user, test.groups, test.request))
			if err != nil {
				t.Fatal(err)
			}
			test.facts.now = now
			leaf, err := judge(r, test.facts)
			switch {
			case test.want == "" && err != nil:
				t.Errorf("denied: %v", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want %q", err, test.want)
			case err == nil && (leaf.Client == leaf.Server || leaf.Client != (test.signer == clientSigner)):
				t.Errorf("usage of %+v", leaf)
			}
		})
	}
}

func TestNotOurs(t *testing.T) {
	r, err := parseRequest(ask(t, certificatesv1.KubeAPIServerClientSignerName, "eve", nil, x509.CertificateRequest{Subject: pkix.Name{CommonName: "eve"}}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := judge(r, facts{}); !errors.Is(err, errNotOurs) {
		t.Errorf("judged: %v", err)
	}
}

func TestParseRequest(t *testing.T) {
	good := ask(t, clientSigner, joiner, nil, x509.CertificateRequest{Subject: nodeSubject("a")})
	block, _ := pem.Decode(good.Spec.Request)
	tampered := append([]byte(nil), block.Bytes...)
	tampered[len(tampered)-1] ^= 1
	for name, text := range map[string][]byte{
		"nothing": nil, "no PEM": []byte("hello"),
		"a certificate": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}),
		"rubbish":       pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: []byte("x")}),
		"a wrong proof": pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: tampered}),
	} {
		csr := good.DeepCopy()
		csr.Spec.Request = text
		if _, err := parseRequest(csr); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
