package servers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"lighter.dev/lighter/api/jointoken"
	"lighter.dev/lighter/controller/pki"
	"lighter.dev/lighter/controller/store"
	"lighter.dev/lighter/controller/store/storetest"
)

const (
	forServers = "aaaaaa.0123456789abcdef"
	forAgents  = "bbbbbb.0123456789abcdef"
)

var ranges = Ranges{ClusterCIDR: "10.42.0.0/16", ServiceCIDR: "10.43.0.0/16", Domain: "cluster.local"}

// cluster is one server: keys, a store, and what the API server does before it
// asks the Handler, in its shortest form.
type cluster struct {
	*httptest.Server
	authority *pki.Authority
	store     *store.Store
	asked     int
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	dir := t.TempDir()
	c := &cluster{}
	var err error
	c.authority, err = pki.Open(pki.Config{Dir: filepath.Join(dir, "pki"), Names: []string{"localhost", ServerName}, IPs: pki.Loopback()})
	if err != nil {
		t.Fatal(err)
	}
	c.store, err = store.Start(t.Context(), store.Config{
		Dir: filepath.Join(dir, "etcd"), Name: "host-1", Peer: storetest.Port(t), ClusterID: c.authority.ClusterID(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.store.Close(); err != nil {
			t.Error(err)
		}
	})
	pair, err := tls.LoadX509KeyPair(c.authority.ServerCert())
	if err != nil {
		t.Fatal(err)
	}
	handler := &Handler{
		Store: c.store, Authority: c.authority, Ranges: ranges, Name: "host-1", Log: slog.New(slog.DiscardHandler),
		Leader: func(context.Context) string { return "host-1" },
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cacerts", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(c.authority.PEM) })
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc(Path, func(w http.ResponseWriter, r *http.Request) {
		c.asked++
		switch r.Header.Get("Authorization") {
		case "Bearer " + forServers:
			handler.ServeHTTP(w, r)
		case "Bearer " + forAgents:
			answer(w, nil, apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("no")))
		default:
			answer(w, nil, apierrors.NewUnauthorized("Unauthorized"))
		}
	})
	c.Server = httptest.NewUnstartedServer(mux)
	c.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	c.StartTLS()
	t.Cleanup(c.Close)
	return c
}

func (c *cluster) token(t *testing.T, bearer string) string {
	t.Helper()
	token, err := jointoken.New(c.authority.PEM, bearer)
	if err != nil {
		t.Fatal(err)
	}
	return token.String()
}

func (c *cluster) joiner(t *testing.T) *Joiner {
	t.Helper()
	return &Joiner{
		URL: c.URL, Token: c.token(t, forServers), Log: slog.New(slog.DiscardHandler),
		Request: Request{
			Server: store.Server{Name: "host-2", Address: "127.0.0.1:1", PeerURL: "https://" + storetest.Port(t).String()},
			Ranges: ranges,
		},
	}
}

// TestJoin goes all the way: keys and members travel, the new server's store
// starts and has the data, and both are listed.
func TestJoin(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if err := c.store.Introduce(t.Context(), strings.TrimPrefix(c.URL, "https://")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	folders := Folders{PKI: filepath.Join(dir, "pki"), Store: filepath.Join(dir, "etcd")}
	j := c.joiner(t)
	joined := func(want bool) {
		t.Helper()
		if got, err := folders.Joined(j.Token); err != nil || got != want {
			t.Errorf("joined: %t, %v", got, err)
		}
	}
	joined(false)
	var reply *Reply
	for range 2 { // the second as after a crash
		var err error
		if reply, err = j.Join(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := folders.Adopt(reply, j.Request.PeerURL); err != nil {
			t.Fatal(err)
		}
		joined(false)
	}
	second, err := pki.Open(pki.Config{Dir: folders.PKI})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []func(*pki.Authority) string{(*pki.Authority).CAFile, (*pki.Authority).EncryptionFile, (*pki.Authority).ServiceAccountKeyFile} {
		one, _ := os.ReadFile(file(c.authority))
		two, err := os.ReadFile(file(second))
		if err != nil || !slices.Equal(one, two) {
			t.Errorf("%s differs: %v", file(second), err)
		}
		if info, err := os.Stat(file(second)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file(second), info.Mode(), err)
		}
	}
	peer := netip.MustParseAddrPort(strings.TrimPrefix(j.Request.PeerURL, "https://"))
	s, err := store.Start(t.Context(), store.Config{
		Dir: folders.Store, Name: "host-2", Peer: peer, Join: reply.Members, ClusterID: second.ClusterID(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	joined(true)
	if err := s.Promotion(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := &Handler{Store: s, Authority: second, Leader: func(context.Context) string { return "host-1" }}
	list, err := h.list(t.Context())
	if err != nil || len(list.Servers) != 2 || list.Quorum != "" {
		t.Fatalf("%+v, %v", list, err)
	}
	if one := list.Servers[0]; one.Name != "host-1" || one.Role != RoleVoter || !one.Leader || !one.Healthy {
		t.Errorf("%+v", one)
	}
	if two := list.Servers[1]; two.Name != "host-2" || two.Role != RoleVoter || two.Leader || two.Healthy || two.Problem == "" {
		t.Errorf("%+v", two)
	}
	_, err = j.Join(t.Context())
	refused(t, err, "there is a server of that name already: host-2", "--node-name", "lighter server remove host-2")
}

func refused(t *testing.T, err error, wants ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("not refused")
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "0123456789abcdef") {
		t.Errorf("%q tells the secret", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	c, other := newCluster(t), newCluster(t)
	for name, test := range map[string]struct {
		change func(*Joiner)
		wants  []string
		asked  int
	}{
		"no token":        {func(j *Joiner) { j.Token = "swordfish" }, []string{"not a join token"}, 0},
		"agents' token":   {func(j *Joiner) { j.Token = c.token(t, forAgents) }, []string{"bbbbbb is one for agents", "lighter token create --server"}, refusals},
		"unknown token":   {func(j *Joiner) { j.Token = c.token(t, "cccccc.0123456789abcdef") }, []string{"cccccc: it has expired or was deleted", "lighter token create --server"}, refusals},
		"other cluster":   {func(j *Joiner) { j.Token = other.token(t, forServers) }, []string{"the server's CA has hash", "another cluster's server"}, 0},
		"other ranges":    {func(j *Joiner) { j.Request.Ranges.ClusterCIDR = "10.0.0.0/8" }, []string{"this cluster has --cluster-cidr 10.42.0.0/16"}, 1},
		"external etcd":   {func(j *Joiner) { j.Request.PeerURL = "" }, []string{"without --etcd-endpoints"}, 1},
		"bad name":        {func(j *Joiner) { j.Request.Name = "No Name" }, []string{"--node-name"}, 1},
		"name of another": {func(j *Joiner) { j.Request.Name = "host-1" }, []string{"of that name already: host-1"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c.asked = 0
			j := c.joiner(t)
			test.change(j)
			_, err := j.Join(t.Context())
			refused(t, err, test.wants...)
			if c.asked != test.asked {
				t.Errorf("asked %d times", c.asked)
			}
		})
	}
	if n := len(c.store.Members()); n != 1 {
		t.Errorf("%d members after refusals", n)
	}
}

func TestJoinWaitsForTheServer(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	j := c.joiner(t)
	j.URL = "https://127.0.0.1:1" // nobody serves there
	ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Second, errors.New("not in time"))
	defer cancel()
	_, err := j.Join(ctx)
	refused(t, err, "not in time", "connection refused", j.URL)
}

func TestFolders(t *testing.T) {
	t.Parallel()
	c, other := newCluster(t), newCluster(t)
	dir := t.TempDir()
	shared, err := c.authority.Shared()
	if err != nil {
		t.Fatal(err)
	}
	external := Folders{PKI: filepath.Join(dir, "pki")}
	if err := external.Adopt(&Reply{Identity: shared}, ""); err != nil {
		t.Fatal(err)
	}
	if joined, err := external.Joined(""); !joined || err != nil {
		t.Errorf("with an external etcd the keys are all: %t, %v", joined, err)
	}
	_, err = external.Joined(other.token(t, forServers))
	refused(t, err, external.PKI+" holds the keys of another cluster", "--data-dir")
	etcd := filepath.Join(dir, "etcd")
	if err := os.MkdirAll(filepath.Join(etcd, "data/member/wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(etcd, "data/member/wal/0000000000000000-0000000000000000.wal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Folders{PKI: filepath.Join(dir, "none"), Store: etcd}.Joined("")
	refused(t, err, "not its keys")
	if err := (Folders{PKI: dir, Store: etcd}).Adopt(&Reply{Identity: shared}, ""); err == nil {
		t.Error("a reply without members was adopted")
	}
}

func TestMerge(t *testing.T) {
	known := map[string]store.Server{}
	for _, name := range []string{"a", "b", "c"} {
		known[name] = store.Server{Name: name, Address: name + ":6443"}
	}
	members := []store.Member{{Name: "a"}, {Name: "b", Learner: true}, {Name: ""}}
	got := ""
	for _, info := range merge(known, members, false) {
		got += fmt.Sprintf("%s %s %s, ", info.Name, info.Address, info.Role)
	}
	if want := "a a:6443 voter, b b:6443 learner, c c:6443 joining, "; got != want {
		t.Errorf("%s", got)
	}
	if infos := merge(known, nil, true); infos[0].Role != RoleExternal {
		t.Errorf("%+v", infos)
	}
}

func TestFailedChecks(t *testing.T) {
	for text, want := range map[string]string{
		"[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/x failed\n": "etcd, poststarthook/x",
		"no such thing\n": "no such thing",
		"[-]":             "",
	} {
		if got := failedChecks(text); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
}
