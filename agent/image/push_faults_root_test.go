package image

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"lighter.dev/lighter/api/agentapi"
)

func TestPushRefused(t *testing.T) {
	reg := passwordRegistry(t)
	denying := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			http.Error(w, "", http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`)
	}))
	defer denying.Close()
	deniedHost := denying.Listener.Addr().String()
	const gone = "127.0.0.1:1" // nobody serves there
	s := open(t, func(c *Config) { c.Registries = map[string]Registry{reg.host: {CAFile: reg.caFile}} })
	from := stock(t, s, newFixture(t, map[string]string{"a": "1"}))
	ann := func(host, password string) []agentapi.Credential {
		return []agentapi.Credential{{Host: host, Username: "ann", Password: password}}
	}
	tests := []struct {
		name, to string
		auth     []agentapi.Credential
		kind     func(error) bool
		text     string // of the error; "" is success
	}{
		{"right password", reg.host + "/team/shop:v1", ann(reg.host, "secret"), nil, ""},
		{"wrong password", reg.host + "/team/shop:v2", ann(reg.host, "wrong"), errdefs.IsPermissionDenied, `refused user "ann": the password is wrong`},
		{"second of two", reg.host + "/team/shop:v3", append(ann(reg.host, "wrong"), ann(reg.host, "secret")...), nil, ""},
		{"no password", reg.host + "/team/shop:v4", nil, errdefs.IsPermissionDenied, "wants credentials: log in"},
		{"for another registry", reg.host + "/team/shop:v5", ann("other.example", "secret"), errdefs.IsPermissionDenied, "wants credentials"},
		{"no right to push", deniedHost + "/team/shop:v1", ann(deniedHost, "secret"), errdefs.IsPermissionDenied, "may not push there"},
		{"nobody answers", gone + "/team/shop:v1", nil, errdefs.IsUnavailable, "cannot be reached"},
		{"by digest", reg.host + "/team/shop@" + digest.FromString("x").String(), nil, errdefs.IsInvalidArgument, "needs a name with a tag"},
	}
	before := count(t, s)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.Push(context.Background(), "", from, tt.to, tt.auth, nil)
			if tt.text == "" {
				must(t, err)
				return
			}
			if err == nil || !tt.kind(err) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error: %v", err)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), `"wrong"`) {
				t.Errorf("the error tells a password: %v", err)
			}
		})
	}
	if n := count(t, s); n != before {
		t.Errorf("left over: %+v, want %+v", n, before)
	}
	if _, err := s.Push(context.Background(), "", "none", "", nil, nil); !errdefs.IsNotFound(err) {
		t.Errorf("push of a missing image: %v", err)
	}
}

// TestPushFaults: uploads that break are repeated, a registry that hangs is given up.
func TestPushFaults(t *testing.T) {
	reg := traced(t)
	isUpload := func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/")
	}
	var broken atomic.Int32
	hang := make(chan struct{})
	defer close(hang)
	tests := []struct {
		name  string
		fault func(w http.ResponseWriter, r *http.Request) bool
		text  string
	}{
		{"drops twice in the middle", func(_ http.ResponseWriter, r *http.Request) bool {
			if !isUpload(r) || r.ContentLength < 1<<19 || broken.Add(1) > 2 {
				return false
			}
			_, _ = io.CopyN(io.Discard, r.Body, 100_000)
			panic(http.ErrAbortHandler)
		}, ""},
		{"busy twice", func(w http.ResponseWriter, r *http.Request) bool {
			if !isUpload(r) || broken.Add(1) > 2 {
				return false
			}
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}, ""},
		{"reads nothing", func(_ http.ResponseWriter, r *http.Request) bool {
			if !isUpload(r) {
				return false
			}
			<-hang
			return true
		}, "does not answer"},
		{"is given up by its client", func(_ http.ResponseWriter, r *http.Request) bool {
			if !isUpload(r) {
				return false
			}
			<-hang
			return true
		}, "context canceled"},
		{"never answers", func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				<-hang
			}
			return r.Method == http.MethodPost
		}, "does not answer"},
		{"wants a token that nobody gives", func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/token") {
				w.WriteHeader(http.StatusNotFound)
				return true
			}
			if !isUpload(r) {
				return false
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="registry"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}, "token"},
		{"says that the digest is wrong", func(w http.ResponseWriter, r *http.Request) bool {
			if !isUpload(r) {
				return false
			}
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}`)
			return true
		}, "did not match"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, func(c *Config) {
				if tt.text == "does not answer" {
					c.stall = 300 * time.Millisecond
				}
			})
			// Of its own, lest the registry has it already.
			from := stock(t, s, newFixture(t, map[string]string{"a": random(1<<20 + i)}))
			before := count(t, s)
			broken.Store(0)
			reg.reset(tt.fault)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if tt.text == "context canceled" {
				time.AfterFunc(100*time.Millisecond, cancel)
			}
			start := time.Now()
			_, err := s.Push(ctx, "", from, fmt.Sprintf("%s/fault/%d:v1", reg.host, i), nil, nil)
			if (err == nil) != (tt.text == "") || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("after %s: %v", time.Since(start), err)
			}
			if n := count(t, s); n != before {
				t.Errorf("left over: %+v, want %+v", n, before)
			}
		})
	}
}
