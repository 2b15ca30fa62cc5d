package image

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"lighter.dev/lighter/api/agentapi"
)

// identityOfAnn is the refresh token that "docker login" would have kept for ann.
const identityOfAnn = "identity-of-ann"

// tokenServer is a token service of the Docker Registry v2 protocol ("docker
// Registry v2 Bearer token"): ann, whose password is "secret", may pull and push
// below team/, bob, whose password is "hidden", may pull there, and everybody may
// pull below public/.
type tokenServer struct {
	pair tls.Certificate
	url  string

	mu     sync.Mutex
	down   bool
	scopes []string // that were asked for, with the user
}

func newTokenServer(t testing.TB, ca *authority) *tokenServer {
	t.Helper()
	s := &tokenServer{pair: ca.issue(t, "token service")}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.url = srv.URL + "/token"
	return s
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user, password, given := r.BasicAuth()
	if r.Method == http.MethodPost { // OAuth 2.0, RFC 6749
		user, password, given = r.FormValue("username"), r.FormValue("password"), true
		if r.FormValue("grant_type") == "refresh_token" {
			user, password = "ann", ""
			if r.FormValue("refresh_token") == identityOfAnn {
				password = "secret"
			}
		}
	}
	switch {
	case s.down:
		http.Error(w, "out of order", http.StatusServiceUnavailable)
		return
	case given && password != map[string]string{"ann": "secret", "bob": "hidden"}[user], r.FormValue("service") != "test":
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
		return
	}
	var access []map[string]any
	for _, scope := range strings.Fields(strings.Join(r.Form["scope"], " ")) {
		s.scopes = append(s.scopes, user+" "+scope)
		parts := strings.SplitN(scope, ":", 3)
		if granted := granted(user, parts[1], strings.Split(parts[2], ",")); len(granted) > 0 {
			access = append(access, map[string]any{"type": parts[0], "name": parts[1], "actions": granted})
		}
	}
	token, err := s.sign(user, access)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 300})
}

// granted is what a user may do of what was asked for.
func granted(user, repository string, actions []string) []string {
	return slices.DeleteFunc(slices.Clone(actions), func(action string) bool {
		team := strings.HasPrefix(repository, "team/")
		return !(action == "pull" && strings.HasPrefix(repository, "public/") || team && user == "ann" || team && user == "bob" && action == "pull")
	})
}

// sign makes a JSON Web Token (RFC 7519) that brings its certificate along.
func (s *tokenServer) sign(user string, access []map[string]any) (string, error) {
	now := time.Now()
	part := func(doc any) string {
		raw, _ := json.Marshal(doc) // maps of strings and numbers
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	text := part(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(s.pair.Certificate[0])}}) + "." +
		part(map[string]any{"iss": "test", "aud": "test", "sub": user, "jti": rand.Text(), "access": access,
			"nbf": now.Add(-time.Minute).Unix(), "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()})
	sum := sha256.Sum256([]byte(text))
	a, b, err := ecdsa.Sign(rand.Reader, s.pair.PrivateKey.(*ecdsa.PrivateKey), sum[:])
	if err != nil {
		return "", err
	}
	signature := append(a.FillBytes(make([]byte, 32)), b.FillBytes(make([]byte, 32))...)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// asked counts the questions for a scope, and forgets them with all others.
func (s *tokenServer) asked(scope string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, asked := range s.scopes {
		if asked == scope {
			n++
		}
	}
	s.scopes = nil
	return n
}

// tokenRegistry is a real registry that wants tokens of a service, behind a proxy
// that notes and breaks.
func tokenRegistry(t testing.TB) (*tracedRegistry, *tokenServer) {
	t.Helper()
	ca := newAuthority(t)
	service := newTokenServer(t, ca)
	bundle := filepath.Join(t.TempDir(), "roots.pem")
	writePEM(t, bundle, "CERTIFICATE", ca.cert.Raw)
	return tracedBy(t, fmt.Sprintf("auth: {token: {realm: %s, service: test, issuer: test, rootcertbundle: %s}}\n", service.url, bundle)), service
}

func login(host, user, password string) []agentapi.Credential {
	if password == identityOfAnn {
		return []agentapi.Credential{{Host: host, IdentityToken: password}}
	}
	return []agentapi.Credential{{Host: host, Username: user, Password: password}}
}

// TestBearerTokens: pull and push at a registry that wants tokens, by password, by
// refresh token and as nobody, with the scopes that are needed and no more.
func TestBearerTokens(t *testing.T) {
	needRoot(t)
	reg, service := tokenRegistry(t)
	s := open(t, nil)
	ctx := context.Background()
	from := stock(t, s, newFixture(t, map[string]string{"a": random(200_000)}))
	none := []agentapi.Credential(nil)
	before := count(t, s)
	tests := []struct {
		name, what, repository string
		auth                   []agentapi.Credential
		scope                  string // that has to be asked for
		text                   string // of the error; "" is success
	}{
		{"push with a password", "push", "team/shop", login(reg.host, "ann", "secret"), "ann repository:team/shop:pull,push", ""},
		{"push with a refresh token", "push", "team/other", login(reg.host, "", identityOfAnn), "ann repository:team/other:pull,push", ""},
		{"push without a login", "push", "team/shop", none, " repository:team/shop:pull,push", "wants credentials: log in"},
		{"push with a wrong password", "push", "team/shop", login(reg.host, "ann", "wrong"), "", `refused user "ann": the password is wrong`},
		{"push where pulling is allowed", "push", "team/third", login(reg.host, "bob", "hidden"), "bob repository:team/third:pull,push", `refused user "bob"`},
		{"push where nobody may", "push", "public/shop", login(reg.host, "ann", "secret"), "ann repository:public/shop:pull,push", "may not push there"},
		{"pull with a password", "pull", "team/shop", login(reg.host, "bob", "hidden"), "bob repository:team/shop:pull", ""},
		{"pull with a refresh token", "pull", "team/shop", login(reg.host, "", identityOfAnn), "ann repository:team/shop:pull", ""},
		{"pull without a login", "pull", "team/shop", none, " repository:team/shop:pull", "wants credentials"},
		{"pull with a wrong password", "pull", "team/shop", login(reg.host, "bob", "wrong"), "", `refused user "bob"`},
		{"pull where everybody may, and nothing is", "pull", "public/none", none, " repository:public/none:pull", "has no such image"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			service.asked("")
			to := reg.host + "/" + tt.repository + ":v1"
			var err error
			if tt.what == "push" {
				_, err = s.Push(ctx, "", from, to, tt.auth, nil)
			} else {
				other := open(t, nil)
				_, err = other.Pull(ctx, "", to, tt.auth, nil)
				if n := count(t, other); err != nil && n.Blobs+n.Leases+n.Ingests+n.Records != 0 {
					t.Errorf("left over: %+v", n)
				}
			}
			if (err == nil) != (tt.text == "") || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error: %v, want %q", err, tt.text)
			}
			if err != nil && !errdefs.IsPermissionDenied(err) && !errdefs.IsNotFound(err) {
				t.Errorf("kind of error: %v", err)
			}
			if err != nil && (strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "eyJ")) {
				t.Errorf("the error tells a secret: %v", err)
			}
			if n := service.asked(tt.scope); tt.scope != "" && n == 0 {
				t.Errorf("scope %q was not asked for", tt.scope)
			}
		})
	}
	if n := count(t, s); n != before {
		t.Errorf("left over: %+v, want %+v", n, before)
	}
}

// TestTokenExpires: a token that ends in mid-pull or mid-push is fetched anew; a
// token service that is out of order is named.
func TestTokenExpires(t *testing.T) {
	needRoot(t)
	reg, service := tokenRegistry(t)
	ctx := context.Background()
	fx := newFixture(t, map[string]string{"a": random(200_000)})
	ann := login(reg.host, "ann", "secret")
	var mu sync.Mutex
	expired := map[string]bool{}
	expire := func(method, path string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			if r.Method != method || !strings.Contains(r.URL.Path, path) || r.Header.Get("Authorization") == "" || expired[method] {
				return false
			}
			expired[method] = true
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="test",scope="repository:team/shop:pull,push",error="invalid_token"`, service.url))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
	}
	s := open(t, nil)
	from := stock(t, s, fx)
	to := reg.host + "/team/shop:v1"
	// The second question of a push: the first one, for what is there, got the token.
	reg.reset(expire(http.MethodPost, "/blobs/uploads"))
	if _, err := s.Push(ctx, "", from, to, ann, nil); err != nil {
		t.Fatalf("push: %v", err)
	}
	reg.reset(expire(http.MethodGet, "/blobs/"+fx.layers[0].Digest.String()))
	other := open(t, nil)
	if _, err := other.Pull(ctx, "", to, ann, nil); err != nil {
		t.Fatalf("pull: %v", err)
	}
	if !expired[http.MethodPost] || !expired[http.MethodGet] {
		t.Errorf("tokens expired: %v, so this test proves nothing", expired)
	}
	service.mu.Lock()
	service.down = true
	service.mu.Unlock()
	_, err := open(t, nil).Ensure(ctx, Request{Ref: to, Auth: fromAPI(ann)})
	if !errors.Is(err, ErrPull) || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), strings.TrimPrefix(service.url, "http://")) {
		t.Errorf("a token service that is down: %v", err)
	}
}

// TestTokenMount: a layer is mounted from another repository where tokens are wanted,
// too, for which the token has to cover both.
func TestTokenMount(t *testing.T) {
	needRoot(t)
	reg, _ := tokenRegistry(t)
	ctx := context.Background()
	s := open(t, nil)
	from, ann := stock(t, s, newFixture(t, map[string]string{"a": random(200_000)})), login(reg.host, "ann", "secret")
	for _, repository := range []string{"team/one", "team/two"} {
		reg.reset(nil)
		if _, err := s.Push(ctx, "", from, reg.host+"/"+repository+":v1", ann, nil); err != nil {
			t.Fatal(err)
		}
	}
	if mounted, sent := reg.count("POST", "mount="+digest.SHA256.String(), "from=team", " 201"), reg.count("PUT", "/blobs/"); mounted != 2 || sent != 0 {
		t.Errorf("%d blobs mounted, %d sent\n%s", mounted, sent, strings.Join(reg.asked, "\n"))
	}
}
