package apiserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"

	"lighter.dev/lighter/api/client/clientset"
	"lighter.dev/lighter/api/v1alpha1"
	"lighter.dev/lighter/controller/pki"
	"lighter.dev/lighter/controller/store"
)

const advertised = "192.0.2.10" // TEST-NET-1: nobody is called there

// shared is the one server of this package's tests, with a real etcd.
var shared struct {
	*Server
	authority *pki.Authority
	store     *store.Store
	picker    *picker
	address   string
}

// picker is a BuilderPicker and a HolderPicker that tests tell what to say.
type picker struct {
	mu   sync.Mutex
	node string
	err  error
}

func (p *picker) set(node string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.node, p.err = node, err
}

func (p *picker) PickBuilder(_ context.Context, _ *v1alpha1.Image, wantNode string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if wantNode != "" {
		return wantNode, p.err
	}
	return p.node, p.err
}

func (p *picker) PickHolder(ctx context.Context, image *v1alpha1.Image) (string, error) {
	return p.PickBuilder(ctx, image, "")
}

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "apiserver-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended, err := startShared(ctx, dir)
	if err != nil {
		return 1, err
	}
	code = m.Run()
	cancel()
	return code, errors.Join(<-ended, shared.store.Close())
}

func startShared(ctx context.Context, dir string) (<-chan error, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	shared.address = listener.Addr().String()
	shared.picker = &picker{}
	if shared.authority, err = pki.Open(pki.Config{Dir: filepath.Join(dir, "pki"), Names: []string{"localhost"}, IPs: pki.Loopback()}); err != nil {
		return nil, err
	}
	if shared.store, err = store.Start(ctx, store.Config{Dir: filepath.Join(dir, "etcd"), ClusterID: shared.authority.ClusterID()}); err != nil {
		return nil, err
	}
	shared.Server, err = New(ctx, Config{
		Etcd: shared.store.Transport(), NewClient: shared.store.InProcess(), Authority: shared.authority,
		Listener: listener, Advertise: net.ParseIP(advertised), ClusterDomain: "cluster.local",
		ServiceCIDR: &net.IPNet{IP: net.IPv4(10, 43, 0, 0).To4(), Mask: net.CIDRMask(16, 32)},
		PodCIDR:     netip.MustParsePrefix("10.42.0.0/16"), Builders: shared.picker, Holders: shared.picker,
	})
	if err != nil {
		return nil, err
	}
	roles := clusterroleaggregation.NewClusterRoleAggregation(shared.Informers().Rbac().V1().ClusterRoles(), shared.client.RbacV1())
	ended := make(chan error, 1)
	go func() { ended <- shared.Run(ctx) }()
	select {
	case <-shared.Ready():
	case err := <-ended:
		return nil, fmt.Errorf("the server ended: %w", err)
	case <-time.After(3 * time.Minute):
		return nil, errors.New("the server is not ready after three minutes")
	}
	go roles.Run(ctx, 1)
	return ended, nil
}

// admin is a client with all rights, over the network.
func admin(t *testing.T) *rest.Config { return as(t, pki.AdminName, pki.AdminGroup) }

// as is a client with a certificate of the cluster's CA.
func as(t *testing.T, user string, groups ...string) *rest.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	crt, err := shared.authority.Sign(pki.Leaf{CommonName: user, Organizations: groups, Client: true}, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	config := anonymous()
	config.CertData, config.KeyData = crt, text
	return config
}

func asNode(t *testing.T, name string) *rest.Config {
	t.Helper()
	return as(t, "system:node:"+name, nodesGroup)
}

func anonymous() *rest.Config {
	return &rest.Config{Host: "https://" + shared.address, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: shared.authority.PEM}}
}

func withToken(token string) *rest.Config {
	config := anonymous()
	config.BearerToken = token
	return config
}

func kube(t *testing.T, config *rest.Config) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func ours(t *testing.T, config *rest.Config) clientset.Interface {
	t.Helper()
	config = rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeJSON
	client, err := clientset.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// newNamespace has a name that no other test uses, and a service account.
func newNamespace(t *testing.T) string {
	t.Helper()
	namespace, err := shared.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the service account of "+namespace.Name, func() error {
		_, err := shared.client.CoreV1().ServiceAccounts(namespace.Name).Get(t.Context(), defaultAccount, metav1.GetOptions{})
		return err
	})
	return namespace.Name
}

// eventually repeats a look until it finds no fault, for up to a minute.
func eventually(t *testing.T, what string, look func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		last = look()
		return last == nil, nil
	})
	if err != nil {
		t.Errorf("%s: %v", what, last)
	}
}
