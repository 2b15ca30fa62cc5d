// Package identity makes a host a member of a cluster and keeps it one.
//
// A join token leads from nothing to two certificates of the cluster's CA:
//
//	GET /cacerts, checked against the hash in the token
//	bootstrap token  → client certificate  (CN system:node:<name>, O system:nodes)
//	that certificate → serving certificate (the node's name and addresses)
//
// Both are requested as CertificateSigningRequests and kept, with their keys,
// below Config.Dir, readable by root only. From then on neither the token nor the
// API server is needed to start. client-go's certificate manager renews them
// while Run runs.
//
//	identity.go  Bootstrap, and what others get of an Identity
//	join.go      the first join: CA, token, client certificate
//	record.go    what the folder says about the cluster and the node
//	store.go     a certificate on disk and in memory; tells when there is one
package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/certificate"
)

const (
	nodePrefix = "system:node:"
	nodesGroup = "system:nodes"
	// serverName is in the certificate of every server: whatever address one is
	// reached by, this is who has to answer there.
	serverName = "kubernetes"
)

var (
	clientUsages  = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
	servingUsages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth}
)

// Config says which cluster to join, and as whom.
type Config struct {
	// Server is the URL of the cluster's API, https://host:port.
	Server string
	// Dial, if not nil, makes the connections of a member, to whichever server answers.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Token is a join token (package api/jointoken). A host that has joined needs
	// none, but one that is given must be of the same cluster.
	Token string
	// NewToken, if not nil, is asked for a token when one is needed and Token is empty.
	NewToken func(ctx context.Context) (string, error)
	NodeName string
	// NodeIPs are the addresses that the serving certificate is for.
	NodeIPs []netip.Addr
	// Dir is a folder that belongs to the identity alone.
	Dir string
	Log *slog.Logger
}

// Identity is a member's proof of being one.
type Identity struct {
	cfg  Config
	have record // of the cluster that the host has joined; empty if it has not

	ca    *x509.Certificate // nil if not known yet
	caPEM []byte
	pool  *x509.CertPool

	client, serving *store
}

// Bootstrap joins the cluster, or finds in cfg.Dir that the host has joined, in
// which case it asks nobody. It retries what may heal by itself until ctx ends;
// a wrong token, CA, name or folder is an error at once.
func Bootstrap(ctx context.Context, cfg Config) (*Identity, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if err := os.Chmod(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	i := &Identity{cfg: cfg}
	var err error
	if i.client, err = openStore(cfg.Dir, "client", cfg.Log); err != nil {
		return nil, err
	}
	if i.serving, err = openStore(cfg.Dir, "serving", cfg.Log); err != nil {
		return nil, err
	}
	if err := i.recognise(); err != nil {
		return nil, err
	}
	if why := i.client.unusable(nodePrefix+cfg.NodeName, i.ca, time.Now()); why != "" {
		if err := i.join(ctx, why); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// NodeName is who this host is in the cluster.
func (i *Identity) NodeName() string { return i.cfg.NodeName }

// CAPool holds the cluster's CA.
func (i *Identity) CAPool() *x509.CertPool { return i.pool }

// ClientConfig is how to speak to the API server as this node. client-go reads
// the certificate's file anew and then closes its connections.
func (i *Identity) ClientConfig() *rest.Config {
	return &rest.Config{Host: i.cfg.Server, Dial: i.cfg.Dial, TLSClientConfig: rest.TLSClientConfig{
		CAData: i.caPEM, ServerName: serverName, CertFile: i.client.path, KeyFile: i.client.path,
	}}
}

// ClientTLS is how to speak to other agents as this node.
func (i *Identity) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: i.pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.client.Current() },
	}
}

// ServingTLS is how to serve as this node. Clients may come without a
// certificate; one that is shown has to be of the cluster's CA. Who may do what
// is for the handler to decide.
func (i *Identity) ServingTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ClientCAs: i.pool, ClientAuth: tls.VerifyClientCertIfGiven,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := i.serving.Current()
			if err != nil {
				return nil, fmt.Errorf("node %s: %w", i.cfg.NodeName, err)
			}
			return cert, nil
		},
	}
}

// ServingReady is closed once there is a serving certificate.
func (i *Identity) ServingReady() <-chan struct{} { return i.serving.present }

// Run gets the serving certificate and renews both until ctx ends. Then it writes
// nothing any more, although client-go does not wait for a renewal that is under way.
func (i *Identity) Run(ctx context.Context) error {
	subject := pkix.Name{CommonName: nodePrefix + i.cfg.NodeName, Organization: []string{nodesGroup}}
	serving := &x509.CertificateRequest{Subject: subject, DNSNames: []string{i.cfg.NodeName}}
	for _, ip := range i.cfg.NodeIPs {
		serving.IPAddresses = append(serving.IPAddresses, net.IP(ip.AsSlice()))
	}
	for _, s := range []*store{i.client, i.serving} {
		s.seal(false)
		defer s.seal(true)
	}
	for _, m := range []certificate.Config{
		{Name: "client", SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName, Usages: clientUsages, Template: &x509.CertificateRequest{Subject: subject}, CertificateStore: i.client},
		{Name: "serving", SignerName: certificatesv1.KubeletServingSignerName, Usages: servingUsages, Template: serving, CertificateStore: i.serving},
	} {
		m.Ctx, m.ClientsetFn = &ctx, i.requester
		manager, err := certificate.NewManager(&m)
		if err != nil {
			return fmt.Errorf("identity: renew the %s certificate: %w", m.Name, err)
		}
		manager.Start()
		defer manager.Stop()
	}
	<-ctx.Done()
	return nil
}

// requester makes the client that asks for certificates: always as the node.
func (i *Identity) requester(*tls.Certificate) (kubernetes.Interface, error) {
	return kubernetes.NewForConfig(i.ClientConfig())
}
