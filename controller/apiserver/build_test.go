package apiserver

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/api/v1alpha1"
	"lighter.dev/lighter/controller/pki"
)

// agentServing serves on loopback with a node's certificate and demands the API
// server's. It returns where it is.
func agentServing(t *testing.T, node string, handler http.Handler) *url.URL {
	t.Helper()
	dir := t.TempDir()
	crt, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	if err := shared.authority.Issue(crt, key, pki.Leaf{CommonName: "system:node:" + node, Organizations: []string{nodesGroup}, IPs: pki.Loopback(), Server: true}); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(crt, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(shared.authority.Cert)
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// echo takes the connection over and repeats what it gets on it.
func echo(t *testing.T) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		who := r.TLS.PeerCertificates[0].Subject.CommonName
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n%s %s for %s\n", r.Method, r.URL, who)
		_, _ = io.Copy(conn, buffered)
	})
}

// unreachable is an address where nobody serves.
var unreachable = &url.URL{Host: "127.0.0.1:1"}

// place tells the cluster where a node's agent serves.
func place(t *testing.T, name string, at *url.URL) {
	t.Helper()
	port, err := strconv.Atoi(at.Port())
	if err != nil {
		t.Fatal(err)
	}
	node := register(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: at.Hostname()}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(port)
	if _, err := kube(t, asNode(t, name)).CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func buildPath(namespace, name string) string {
	return "/apis/" + v1alpha1.SchemeGroupVersion.String() + "/namespaces/" + namespace + "/images/" + name + "/build"
}

func TestBuildTunnel(t *testing.T) {
	client, namespace := images(t)
	create(t, client, newImage("web"))
	place(t, "builder", agentServing(t, "builder", echo(t)))
	shared.picker.set("elsewhere", nil)
	config, err := rest.TLSConfigFor(admin(t))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", shared.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: test\r\nContent-Length: 0\r\n\r\n", buildPath(namespace, "web")+"?node=builder&x=y")
	reader := bufio.NewReader(conn)
	reply, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if reply.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answer %s", reply.Status)
	}
	greeting, err := reader.ReadString('\n')
	if want := "POST /build/" + namespace + "/web for " + pki.KubeletClientName + "\n"; err != nil || greeting != want {
		t.Errorf("the agent was asked %q, want %q, %v", greeting, want, err)
	}
	for _, line := range []string{"hello\n", strings.Repeat("x", 1<<16) + "\n"} {
		go func() { _, _ = io.WriteString(conn, line) }()
		if echo, err := reader.ReadString('\n'); err != nil || echo != line {
			t.Errorf("%d bytes came back as %d: %v", len(line), len(echo), err)
		}
	}
}

func TestBuildErrors(t *testing.T) {
	client, namespace := images(t)
	create(t, client, newImage("web"))
	place(t, "silent", unreachable)
	for name, test := range map[string]struct {
		image, node string
		pickErr     error
		is          func(error) bool
		want        string
	}{
		"no such image":      {"none", "silent", nil, apierrors.IsNotFound, `"none" not found`},
		"nobody can build":   {"web", "", errors.New("all hosts are full"), apierrors.IsServiceUnavailable, "all hosts are full"},
		"an unknown node":    {"web", "gone", nil, apierrors.IsServiceUnavailable, "gone"},
		"an agent is silent": {"web", "silent", nil, apierrors.IsServiceUnavailable, "silent"},
	} {
		shared.picker.set(test.node, test.pickErr)
		config := admin(t)
		config.NextProtos = []string{"http/1.1"} // HTTP/2 has no upgrades
		err := ours(t, config).LighterV1alpha1().RESTClient().Post().AbsPath(buildPath(namespace, test.image)).
			SetHeader("Connection", "Upgrade").SetHeader("Upgrade", "test").MaxRetries(0).Do(t.Context()).Error()
		if !test.is(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Who may not build does not learn whether the image exists.
	err := ours(t, as(t, "eve")).LighterV1alpha1().RESTClient().Post().AbsPath(buildPath(namespace, "web")).Do(t.Context()).Error()
	if !apierrors.IsForbidden(err) {
		t.Errorf("somebody builds: %v", err)
	}
}
