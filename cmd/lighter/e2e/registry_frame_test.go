package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/fnv"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// The registry of a run is Debian's docker-registry, with TLS and passwords. It
// listens on an address of the machine that all hosts reach, from a range that is
// never routed (RFC 5737). Hosts get its authority before they start.
const (
	registryUser     = "ann"
	registryPassword = "correct horse"
	registryPort     = "5443"
)

// registryIP differs between runs that are side by side.
func registryIP() net.IP {
	h := fnv.New32a()
	_, _ = h.Write([]byte(clusterName))
	return net.IPv4(198, 51, 100, byte(1+h.Sum32()%250))
}

// registryHost is the registry as names of images have it.
func registryHost() string { return net.JoinHostPort(registryIP().String(), registryPort) }

// registryDir has the registry's certificate and the hosts' settings. A cluster
// that is kept goes on with it.
func registryDir() string { return filepath.Join(os.TempDir(), "lighter-e2e-"+clusterName) }

func registryFile(name string) string { return filepath.Join(registryDir(), name) }

// prepareRegistry makes what the hosts have to know before they start, and
// returns the file with their settings.
func prepareRegistry() (settings string, err error) {
	settings = registryFile("agent.yaml")
	if _, err := os.Stat(settings); err == nil {
		return settings, nil
	}
	if err := os.MkdirAll(registryDir(), 0o755); err != nil {
		return "", err
	}
	if err := makeCertificate(registryFile("cert.pem"), registryFile("key.pem")); err != nil {
		return "", err
	}
	// However full this machine's disk is: tests count on what they have pulled and built.
	text := fmt.Sprintf("registry-ca: [\"%s=%s\"]\nimage-gc-high: 100\n", registryHost(), registryFile("cert.pem"))
	return settings, os.WriteFile(settings, []byte(text), 0o644)
}

// makeCertificate writes a certificate for the registry that vouches for itself.
func makeCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry of " + clusterName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour),
		IPAddresses: []net.IP{registryIP()}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600),
	)
}

var registry struct {
	once    sync.Once
	err     error
	process *exec.Cmd
}

// needRegistry starts the registry of this run once, and returns its host.
func needRegistry(t *testing.T) string {
	t.Helper()
	needCluster(t)
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("there is no docker-registry: hack/install-deps.sh --test installs it")
	}
	registry.once.Do(func() { registry.err = startRegistry(program) })
	if registry.err != nil {
		t.Fatal(registry.err)
	}
	return registryHost()
}

func startRegistry(program string) error {
	_ = exec.Command("ip", "address", "add", registryIP().String()+"/32", "dev", "lo").Run() // a killed run may have left it
	hash, err := bcrypt.GenerateFromPassword([]byte(registryPassword), bcrypt.MinCost)
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %s}}
auth: {htpasswd: {realm: e2e, path: %s}}
http: {addr: %q, tls: {certificate: %s, key: %s}}
`, registryFile("data"), registryFile("htpasswd"), registryHost(), registryFile("cert.pem"), registryFile("key.pem"))
	err = errors.Join(os.WriteFile(registryFile("config.yml"), []byte(config), 0o600),
		os.WriteFile(registryFile("htpasswd"), []byte(registryUser+":"+string(hash)+"\n"), 0o600))
	if err != nil {
		return err
	}
	log, err := os.Create(registryFile("log"))
	if err != nil {
		return err
	}
	defer log.Close()
	registry.process = exec.Command(program, "serve", registryFile("config.yml"))
	registry.process.Stdout, registry.process.Stderr = log, log
	if err := registry.process.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", registryHost())
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(registryFile("log"))
			return fmt.Errorf("the registry did not start: %w\n%s", err, text)
		}
	}
}

// stopRegistry leaves nothing behind; a cluster that is kept needs the files.
func stopRegistry(keep bool) {
	if registry.process != nil {
		_ = registry.process.Process.Kill()
		_ = registry.process.Wait()
		_ = exec.Command("ip", "address", "del", registryIP().String()+"/32", "dev", "lo").Run()
	}
	if !keep {
		_ = os.RemoveAll(registryDir())
	}
}

// person is somebody with a Docker configuration of their own.
type person struct {
	dir string
	env []string // more of it
}

func newPerson(t *testing.T) person { return person{dir: t.TempDir()} }

// try runs lighter as this person.
func (p person) try(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), slack*90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, shared.binary, args...)
	cmd.Env = append(append(os.Environ(), "KUBECONFIG="+shared.kubeconfig, "DOCKER_CONFIG="+p.dir), p.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("lighter %s: %v", strings.Join(args, " "), err)
	}
	return result{out: stdout.String(), err: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// run runs a command that has to succeed, and returns both of its outputs.
func (p person) run(t *testing.T, args ...string) string {
	t.Helper()
	r := p.try(t, "", args...)
	if r.code != 0 {
		t.Fatalf("lighter %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out + r.err
}

// fails runs a command that has to fail and to say all of these.
func (p person) fails(t *testing.T, args []string, parts ...string) {
	t.Helper()
	r := p.try(t, "", args...)
	what := "lighter " + strings.Join(args, " ")
	if r.code == 0 {
		t.Errorf("%s: succeeds\n%s%s", what, r.out, r.err)
	}
	contains(t, what, r.out+r.err, parts...)
}

// login logs in to the registry of the run; more are further flags.
func (p person) login(t *testing.T, password string, more ...string) result {
	t.Helper()
	args := append([]string{"login", "-u", registryUser, "--password-stdin", "--ca-file", registryFile("cert.pem")}, more...)
	return p.try(t, password+"\n", append(args, registryHost())...)
}
