package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// configured is a second cluster, whose hosts get settings from a file.
type configured struct {
	t                *testing.T
	name, kubeconfig string
	gateway          string // the machine, as hosts see it
	hosts            map[string]string
}

// newConfigured brings up a cluster of its own; settings may be "", and come later by
// configure.
func newConfigured(t *testing.T, hosts int, settings string) *configured {
	t.Helper()
	needCluster(t)
	c := &configured{t: t, name: clusterName + "-set"}
	c.local("down")
	t.Cleanup(func() { c.local("down") })
	up := []string{"up", "--hosts", fmt.Sprint(hosts)}
	if settings != "" {
		up = append(up, "--config", c.file(settings))
	}
	c.local(up...)
	c.kubeconfig = strings.TrimSpace(c.local("kubeconfig", "--path"))
	state, err := os.ReadFile(filepath.Join(filepath.Dir(c.kubeconfig), "cluster.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cluster struct {
		Hosts []struct{ Name, IP string }
	}
	if err := json.Unmarshal(state, &cluster); err != nil {
		t.Fatal(err)
	}
	c.hosts = map[string]string{}
	for _, host := range cluster.Hosts {
		c.hosts[host.Name] = host.IP
	}
	c.gateway = c.hosts["host-1"][:strings.LastIndex(c.hosts["host-1"], ".")] + ".1"
	return c
}

// local runs "lighter local" on it.
func (c *configured) local(args ...string) string {
	c.t.Helper()
	return c.lighter(append([]string{"local", "--name", c.name}, args...)...)
}

func (c *configured) lighter(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("lighter %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (c *configured) try(args ...string) (string, error) {
	cmd := exec.CommandContext(c.t.Context(), shared.binary, args...)
	if c.t.Context().Err() != nil { // in a clean-up
		cmd = exec.Command(shared.binary, args...)
	}
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// configure starts the daemons of all hosts again, with settings.
func (c *configured) configure(settings string) {
	c.t.Helper()
	kill := []string{"kill", "--daemon"}
	for host := range c.hosts {
		kill = append(kill, host)
	}
	c.local(kill...)
	c.local("up", "--config", c.file(settings))
	for host := range c.hosts { // all of them are there again
		c.lighter("get", "--raw", "/api/v1/nodes/"+host+"/proxy/healthz")
	}
}

// file holds settings.
func (c *configured) file(settings string) string {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// certificates are a CA and a certificate of it for an address, for both sides.
func certificates(t *testing.T, address ...string) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte, err error) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err == nil {
			err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, text := range address {
		leaf.IPAddresses = append(leaf.IPAddresses, net.ParseIP(text))
	}
	issuer := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	issuerKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, issuer, issuer, &issuerKey.PublicKey, issuerKey)
	ca = write("ca.pem", "CERTIFICATE", der, err)
	der, err = x509.CreateCertificate(rand.Reader, leaf, issuer, &leafKey.PublicKey, issuerKey)
	cert = write("cert.pem", "CERTIFICATE", der, err)
	der, err = x509.MarshalPKCS8PrivateKey(leafKey)
	return ca, cert, write("key.pem", "PRIVATE KEY", der, err)
}

// ownRegistry runs Debian's docker-registry; extra is the rest of its section http.
// The port is none of those that the kernel gives to whoever asks for any.
func ownRegistry(t *testing.T, address, port, extra string) (host string) {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is missing: hack/install-deps.sh --test installs it")
	}
	host = net.JoinHostPort(address, port)
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yml")
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/data}}\nhttp:\n  addr: %s\n%s", dir, host, extra)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", file)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(t, 20*time.Second, "the registry listens", func() error {
		connection, err := net.Dial("tcp", host)
		if err != nil {
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%w: %s", err, said)
		}
		return connection.Close()
	})
	return host
}

// TestSettings: each setting of an agent does what it says, given by the file that
// "lighter local up --config" hands to all hosts.
func TestSettings(t *testing.T) {
	c := newConfigured(t, 2, "")
	ca, cert, key := certificates(t, c.gateway, c.hosts["host-1"], c.hosts["host-2"])
	plain := ownRegistry(t, c.gateway, "5601", "")
	secure := ownRegistry(t, c.gateway, "5602", fmt.Sprintf("  tls: {certificate: %s, key: %s}\n", cert, key))
	c.configure(fmt.Sprintf(`
default-registry: %[1]s
insecure-registry: [%[1]s]
registry-ca: [%[2]s=%[3]s]
registry-mirror: [docker.io=http://%[1]s]
storage-driver: native
log-max-size: 8Ki
log-max-files: 2
image-gc-high: 100
image-gc-low: 96
hosts: [unix:///run/lighter/agent.sock, tcp://0.0.0.0:2376]
tls-ca: %[3]s
tls-cert: %[4]s
tls-key: %[5]s
node-labels: [disk=small]
`, plain, secure, ca, cert, key))
	buildToolbox(t, c, plain, secure)

	t.Run("registries", func(t *testing.T) {
		pods := map[string]string{"insecure": plain + "/team/box:v1", "ca": secure + "/team/box:v1", "mirror": "docker.io/library/mirrored:v1", "default": "plainbox:v1"}
		var names []string
		for name, image := range pods {
			names = append(names, "pod/"+name)
			c.apply("other", fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {name: main, image: %q}\n", name, image))
		}
		if out, err := c.try(append([]string{"wait", "-n", "other", "--for=condition=Ready", "--timeout=180s"}, names...)...); err != nil {
			t.Fatalf("%v\n%s\n%s", err, out, c.lighter("events", "-n", "other"))
		}
	})
	t.Run("bases of builds", func(t *testing.T) {
		dir := t.TempDir()
		writeFiles(t, dir, map[string]string{"Dockerfile": "FROM plainbox:v1\nRUN [\"/bin/busybox\", \"touch\", \"/x\"]\nFROM scratch\nCOPY --from=docker.io/library/mirrored:v1 /bin/busybox /\nCOPY --from=0 /x /\n"})
		// That of "default" has been pulled already; --pull asks the registry.
		for _, how := range []string{"--pull=false", "--pull"} {
			if out, err := c.try("build", "-q", how, "-n", "other", "-t", "on-box", dir); err != nil || !strings.HasPrefix(out, "sha256:") {
				t.Errorf("%s: %v\n%s", how, err, out)
			}
		}
	})
	t.Run("storage driver", func(t *testing.T) {
		c.local("exec", "host-1", "--", "busybox", "test", "-d", "/var/lib/lighter/agent/images/snapshots-native/snapshots")
	})
	t.Run("node labels", func(t *testing.T) {
		eventually(t, 20*time.Second, "both nodes have the label", func() error {
			if out := c.lighter("get", "nodes", "-l", "disk=small", "-o", "name"); len(strings.Fields(out)) != 2 {
				return errOutput(out)
			}
			return nil
		})
	})
	t.Run("log rotation", func(t *testing.T) { testLogRotation(t, c) })
	t.Run("listeners", func(t *testing.T) {
		testListeners(t, c, []string{"--tls-ca", ca, "--tls-cert", cert, "--tls-key", key})
	})
}

// apply applies a manifest in a namespace that it makes if need be.
func (c *configured) apply(ns, manifest string) {
	c.t.Helper()
	_, _ = c.try("create", "namespace", ns) // it may be there
	path := filepath.Join(c.t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.lighter("apply", "-n", ns, "-f", path, "--timeout=180s")
}

// buildToolbox builds an image and pushes it to both registries, in a namespace that
// no test runs pods in.
func buildToolbox(t *testing.T, c *configured, plain, secure string) {
	t.Helper()
	busybox, err := os.ReadFile("../../../manifests/guestbook/app/busybox")
	if err != nil {
		t.Fatalf("%v: make guestbook-base makes it", err)
	}
	dir := t.TempDir()
	names := []string{plain + "/team/box:v1", secure + "/team/box:v1", plain + "/library/mirrored:v1", plain + "/plainbox:v1"}
	writeFiles(t, dir, map[string]string{
		"image.yaml": fmt.Sprintf("apiVersion: lighter.dev/v1alpha1\nkind: Image\nmetadata: {name: box}\nspec:\n  source: {path: box}\n  tags: [%q, %q, %q, %q]\n",
			names[0], names[1], names[2], names[3]),
		"box/busybox":    string(busybox),
		"box/Dockerfile": "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nCMD [\"/bin/busybox\", \"sleep\", \"1d\"]\n",
	})
	c.lighter("apply", "-f", filepath.Join(dir, "image.yaml"))
	for _, name := range names {
		c.lighter("push", "-q", name)
	}
}

// testLogRotation: a pod that says much keeps two files of bounded size.
func testLogRotation(t *testing.T, c *configured) {
	c.apply("other", "apiVersion: v1\nkind: Pod\nmetadata: {name: talks}\nspec:\n  nodeName: host-2\n  terminationGracePeriodSeconds: 1\n  containers:\n"+
		"  - {name: main, image: 'plainbox:v1', command: [/bin/busybox, sh, -c, 'while /bin/busybox sleep 0.1; do /bin/busybox seq 100; done']}\n")
	rotated := map[string]bool{}
	eventually(t, 60*time.Second, "its log was rotated twice", func() error {
		out := c.local("exec", "host-2", "--", "busybox", "sh", "-c", "cd /var/log/pods/other_talks_*/main && echo *")
		// Without the file that is about to become the next one.
		files := slices.DeleteFunc(strings.Fields(out), func(name string) bool { return strings.HasSuffix(name, ".tmp") })
		for _, name := range files {
			rotated[name] = name != "0.log"
		}
		delete(rotated, "0.log")
		// One more is there from when it is rotated until the oldest is removed.
		if len(files) != 2 || len(rotated) < 2 {
			return fmt.Errorf("files: %v", files)
		}
		return nil
	})
	if out := c.lighter("logs", "-n", "other", "talks", "--tail=3"); len(strings.Fields(out)) != 3 {
		t.Errorf("the end of the log: %q", out)
	}
}

// testListeners: one host is asked by each listener, also while the control plane is
// away.
func testListeners(t *testing.T, c *configured, tls []string) {
	tcp := "tcp://" + c.hosts["host-2"] + ":2376"
	ask := func() {
		t.Helper()
		if out := c.lighter(append([]string{"images", "--host", tcp}, tls...)...); !strings.Contains(out, "mirrored") && !strings.Contains(out, "box") {
			t.Errorf("over TCP: %s", out)
		}
		if out := c.local("exec", "host-2", "--", "lighter", "images", "--host", "unix:///run/lighter/agent.sock"); !strings.Contains(out, "box") {
			t.Errorf("by the socket: %s", out)
		}
		if out := c.lighter(append([]string{"system", "df", "--host", tcp}, tls...)...); !strings.Contains(out, "Images") {
			t.Errorf("df: %s", out)
		}
	}
	ask()
	if out, err := c.try("images", "--host", tcp); err == nil || !strings.Contains(out, "--tls-ca") {
		t.Errorf("without certificates: %v\n%s", err, out)
	}
	c.local("kill", "--daemon", "host-1")
	ask()
	c.local("start", "host-1")
}

// TestWrongSettings: a file with mistakes is refused before anything is started, with
// all of them; a value that stands in the file and on the command line too.
func TestWrongSettings(t *testing.T) {
	needCluster(t)
	path := filepath.Join(t.TempDir(), "agent.yaml")
	for _, test := range []struct {
		name, file string
		args, want []string
	}{
		{"unknown key", "registry-mirrors: [a.example=https://b]", nil, []string{path, `key "registry-mirrors": unknown key`}},
		{"clash", "storage-driver: native", []string{"--storage-driver=overlayfs"}, []string{path, `key "storage-driver": clashes with the flag --storage-driver`}},
		{"all at once", "log-max-size: huge\nregistry-ca: [a.example]\nhosts: [tcp://0.0.0.0:1]", nil, []string{"--log-max-size", "--registry-ca", "--hosts: tcp://0.0.0.0:1 needs --tls-ca", "--server"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(test.file), 0o600); err != nil {
				t.Fatal(err)
			}
			out := lighterFails(t, append([]string{"agent", "--config", path, "--data-dir", filepath.Join(t.TempDir(), "data")}, test.args...)...)
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("want %q in\n%s", want, out)
				}
			}
		})
	}
	if err := os.WriteFile(path, []byte("node-ip: 10.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	name := clusterName + "-bad"
	if out := lighterFails(t, "local", "--name", name, "up", "--config", path); !strings.Contains(out, `key "node-ip"`) {
		t.Errorf("%s", out)
	}
	if out := lighter(t, "local", "ls"); strings.Contains(out, name) {
		t.Errorf("a cluster was made all the same:\n%s", out)
	}
}
