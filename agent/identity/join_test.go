package identity

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"lighter.dev/lighter/api/jointoken"
)

// attempts is for what is tried until time is up: enough for a first one to have failed
// on a busy machine. Other tests of this package take as long.
const attempts = 8 * time.Second

const patientText = "make a new one with 'lighter token create'"

func TestRefusedJoins(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(*fakeAPI, *Config)
		want    []string
		offline bool // the server need not be asked at all
	}{
		"no token":           {prepare: func(_ *fakeAPI, c *Config) { c.Token = "" }, want: []string{"this host has not joined the cluster yet", "--token", "lighter token create"}, offline: true},
		"malformed token":    {prepare: func(_ *fakeAPI, c *Config) { c.Token = c.Token[:40] }, want: []string{"not a join token", "lighter token create"}, offline: true},
		"token of newlines":  {prepare: func(_ *fakeAPI, c *Config) { c.Token += "\n" }, want: []string{"not a join token"}, offline: true},
		"not a URL":          {prepare: func(_ *fakeAPI, c *Config) { c.Server = "127.0.0.1:6443" }, want: []string{`"127.0.0.1:6443" is not the URL of a server: want https://`}, offline: true},
		"not HTTPS":          {prepare: func(_ *fakeAPI, c *Config) { c.Server = "http://127.0.0.1:6443" }, want: []string{"want https://"}, offline: true},
		"NewToken fails":     {prepare: func(_ *fakeAPI, c *Config) { c.Token, c.NewToken = "", noToken }, want: []string{"make a join token: out of tokens"}, offline: true},
		"another CA":         {prepare: func(f *fakeAPI, _ *Config) { f.bundle = newCA(f.t).pem }, want: []string{"the server's CA has hash", "another cluster's server"}},
		"the CA second only": {prepare: func(f *fakeAPI, _ *Config) { f.bundle = append(newCA(f.t).pem, f.ca.pem...) }, want: []string{"the server's CA has hash"}},
		"no CA":              {prepare: func(f *fakeAPI, _ *Config) { f.bundle = []byte("<html>") }, want: []string{"no PEM certificate found"}},
		"unknown token":      {prepare: unknownToken, want: []string{"join token zzzzzz", "has expired or was deleted", patientText, "Unauthorized"}},
		"expired token":      {prepare: func(f *fakeAPI, _ *Config) { f.refuse = 1000 }, want: []string{"join token abcdef", "has expired or was deleted", patientText}},
		"denied":             {prepare: func(f *fakeAPI, _ *Config) { f.deny = "a node n1 is alive: give another --node-name" }, want: []string{"the server refuses this host: a node n1 is alive: give another --node-name"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeAPI(t)
			cfg := f.config(t)
			c.prepare(f, &cfg)
			_, err := bootstrap(t, cfg)
			refused(t, err, c.want...)
			if err == nil {
				return
			}
			if strings.Contains(err.Error(), f.token.Secret) {
				t.Errorf("the error tells the secret: %s", err)
			}
			if strings.Count(err.Error(), "n1 is alive") > 1 {
				t.Errorf("the reason is told twice: %s", err)
			}
			if c.offline && f.count() > 0 {
				t.Errorf("the server was asked %d times", f.count())
			}
		})
	}
}

func noToken(context.Context) (string, error) { return "", errors.New("out of tokens") }

func unknownToken(f *fakeAPI, c *Config) {
	c.Token = jointoken.Token{CAHash: f.token.CAHash, ID: "zzzzzz", Secret: f.token.Secret}.String()
}

func TestTokenThatIsNotKnownYet(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	f.refuse = 3
	mustBootstrap(t, f.config(t))
}

func TestNewToken(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.config(t)
	asked := 0
	cfg.NewToken, cfg.Token = func(context.Context) (string, error) { asked++; return f.token.String(), nil }, ""
	mustBootstrap(t, cfg)
	mustBootstrap(t, cfg)
	if asked != 1 {
		t.Errorf("asked for a token %d times", asked)
	}
}

// A server in whose stead somebody else answers gets no token: what /cacerts says
// is right, but the certificate that the server shows is not of that CA.
func TestImpostor(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	f.stop()
	f.serve(newCA(t))
	ctx, cancel := context.WithTimeout(t.Context(), attempts)
	defer cancel()
	_, err := Bootstrap(ctx, f.config(t))
	refused(t, err, "get a client certificate", "certificate signed by unknown authority")
	if len(f.requests) > 0 || f.count() != 1 {
		t.Errorf("%d hits, %d requests", f.count(), len(f.requests))
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	f.stop()
	cfg := f.config(t)
	cfg.Server = "https://127.0.0.1:1" // nobody serves there
	ctx, cancel := context.WithTimeoutCause(t.Context(), attempts, errors.New("not ready in time"))
	defer cancel()
	_, err := Bootstrap(ctx, cfg)
	refused(t, err, "fetch the cluster's CA: not ready in time: ", "connection refused")

	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := Bootstrap(ended, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestServerThatIsNotReady(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	f.down = true
	cfg := f.config(t)
	done := make(chan error, 1)
	go func() {
		_, err := bootstrap(t, cfg)
		done <- err
	}()
	eventually(t, "the host tries again", func() bool { return f.count() > 2 })
	f.set(func() { f.down = false })
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFoldersOfOthers(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.joined(t)
	before := f.count()

	renamed := cfg
	renamed.NodeName = "n2"
	_, err := bootstrap(t, renamed)
	refused(t, err, cfg.Dir+" belongs to node n1, not to n2", "--node-name n1", "--data-dir")

	other := newFakeAPI(t)
	moved := cfg
	moved.Server, moved.Token = other.URL, other.token.String()
	_, err = bootstrap(t, moved)
	refused(t, err, cfg.Dir+" holds the data of another cluster", other.token.CAHash, f.token.CAHash, "--data-dir")

	mistyped := cfg
	mistyped.Token = "LT1"
	_, err = bootstrap(t, mistyped)
	refused(t, err, "not a join token")

	// The same holds for a token that is made when it is needed.
	plant(t, f.ca, cfg, "client.pem", time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	moved.Token, moved.NewToken = "", func(context.Context) (string, error) { return other.token.String(), nil }
	_, err = bootstrap(t, moved)
	refused(t, err, "holds the data of another cluster")

	write(t, cfg, recordFile, "{")
	_, err = bootstrap(t, cfg)
	refused(t, err, "node.json is damaged", "remove "+cfg.Dir)
	if f.count() != before || other.count() != 0 {
		t.Error("a server was asked")
	}
}

// A host that was refused may try again as somebody else, as it was told to.
func TestJoinAgainOtherwise(t *testing.T) {
	t.Parallel()
	f, other := newFakeAPI(t), newFakeAPI(t)
	cfg := f.config(t)
	f.deny = "no"
	if _, err := bootstrap(t, cfg); err == nil {
		t.Fatal("not denied")
	}
	f.set(func() { f.deny = "" })
	renamed := cfg
	renamed.NodeName = "n2"
	if who := mustBootstrap(t, renamed).client.cert.Leaf.Subject.CommonName; who != "system:node:n2" {
		t.Errorf("joined as %s", who)
	}

	cfg = f.config(t)
	unknownToken(f, &cfg)
	if _, err := bootstrap(t, cfg); err == nil {
		t.Fatal("joined with an unknown token")
	}
	cfg.Server, cfg.Token = other.URL, other.token.String()
	i := mustBootstrap(t, cfg)
	run(t, i)
	awaitServing(t, i)
	works(t, i)
}

func TestExpiredClientCertificate(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.joined(t)
	token := cfg.Token
	end := time.Now().Add(-time.Hour)
	plant(t, f.ca, cfg, "client.pem", end.Add(-time.Hour), end)
	cfg.Token = ""
	_, err := bootstrap(t, cfg)
	refused(t, err, "the client certificate has expired on "+end.UTC().Format(time.DateOnly), "--token", "lighter token create")

	cfg.Token = token
	i := mustBootstrap(t, cfg)
	run(t, i)
	awaitServing(t, i)
	works(t, i)
}

// A clock that is behind is no reason to join again.
func TestCertificateOfTheFuture(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.joined(t)
	plant(t, f.ca, cfg, "client.pem", time.Now().Add(time.Hour), time.Now().Add(2*time.Hour))
	cfg.Token = ""
	mustBootstrap(t, cfg)
}

// Whatever a crash, or a disk, leaves behind: a join with a token makes it whole.
func TestInterruptedJoins(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(*testing.T, *fakeAPI, Config){
		"CA but no record":               func(t *testing.T, _ *fakeAPI, c Config) { remove(t, c, recordFile); remove(t, c, "client.pem") },
		"record but no certificate":      func(t *testing.T, _ *fakeAPI, c Config) { remove(t, c, "client.pem"); remove(t, c, "serving.pem") },
		"certificate but no record":      func(t *testing.T, _ *fakeAPI, c Config) { remove(t, c, recordFile) },
		"certificate but no CA":          func(t *testing.T, _ *fakeAPI, c Config) { remove(t, c, caFile) },
		"damaged CA":                     func(t *testing.T, _ *fakeAPI, c Config) { write(t, c, caFile, "-----BEGIN") },
		"another CA":                     func(t *testing.T, _ *fakeAPI, c Config) { write(t, c, caFile, string(newCA(t).pem)) },
		"damaged record, no certificate": func(t *testing.T, _ *fakeAPI, c Config) { write(t, c, recordFile, ""); remove(t, c, "client.pem") },
		"damaged client key":             func(t *testing.T, _ *fakeAPI, c Config) { truncate(t, c, "client.pem") },
		"empty client file":              func(t *testing.T, _ *fakeAPI, c Config) { write(t, c, "client.pem", "") },
		"damaged serving key":            func(t *testing.T, _ *fakeAPI, c Config) { truncate(t, c, "serving.pem") },
		"no serving certificate":         func(t *testing.T, _ *fakeAPI, c Config) { remove(t, c, "serving.pem") },
		"stray files of a write": func(t *testing.T, _ *fakeAPI, c Config) {
			for _, file := range strings.Fields(allFiles) {
				write(t, c, file+".new", "-----BEG")
			}
			remove(t, c, "client.pem")
		},
		"serving certificate of another cluster": func(t *testing.T, _ *fakeAPI, c Config) {
			remove(t, c, recordFile)
			ca := newCA(t)
			plant(t, ca, c, "client.pem", time.Now(), time.Now().Add(time.Hour))
			plant(t, ca, c, "serving.pem", time.Now(), time.Now().Add(time.Hour))
		},
		"client certificate of another cluster": func(t *testing.T, _ *fakeAPI, c Config) {
			plant(t, newCA(t), c, "client.pem", time.Now(), time.Now().Add(time.Hour))
		},
		"client certificate of another node": func(t *testing.T, f *fakeAPI, c Config) {
			c.NodeName = "n2"
			plant(t, f.ca, c, "client.pem", time.Now(), time.Now().Add(time.Hour))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeAPI(t)
			cfg := f.joined(t)
			damage(t, f, cfg)
			i := mustBootstrap(t, cfg)
			stop := run(t, i)
			awaitServing(t, i)
			works(t, i)
			stop()
			if got := files(t, cfg); got != allFiles {
				t.Errorf("files: %s", got)
			}
			// From here on it is a member like any other.
			f.stop()
			cfg.Token = ""
			works(t, mustBootstrap(t, cfg))
		})
	}
}

func truncate(t *testing.T, cfg Config, file string) {
	t.Helper()
	path := filepath.Join(cfg.Dir, file)
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()-100)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDamagedClientKeyWithoutToken(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.joined(t)
	truncate(t, cfg, "client.pem")
	cfg.Token = ""
	_, err := bootstrap(t, cfg)
	refused(t, err, "client.pem is damaged", "--token")
}

func TestUnwritableFolder(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.config(t)
	if err := os.WriteFile(cfg.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := bootstrap(t, cfg)
	refused(t, err, "not a directory")

	cfg = f.config(t)
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "client.pem.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = bootstrap(t, cfg)
	refused(t, err, "keep the client certificate", "is a directory")
	if n := len(f.asks(certificatesv1.KubeAPIServerClientKubeletSignerName)); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestServersAreRemembered(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.joined(t)
	told := []string{"10.0.0.1:6443", "10.0.0.2:6443"}
	i := mustBootstrap(t, cfg)
	for range 2 {
		if err := i.RememberServers(told); err != nil {
			t.Fatal(err)
		}
	}
	i = mustBootstrap(t, cfg)
	if got := i.Servers(); !slices.Equal(got, told) {
		t.Errorf("after a restart: %v", got)
	}
	works(t, i)
}

func TestRecord(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.joined(t)
	text, err := os.ReadFile(filepath.Join(cfg.Dir, recordFile))
	var have record
	if err == nil {
		err = json.Unmarshal(text, &have)
	}
	if err != nil || !reflect.DeepEqual(have, record{NodeName: "n1", CAHash: f.token.CAHash}) {
		t.Errorf("record %+v, %v", have, err)
	}
}
