package buildclient

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// serve runs a TLS server and returns how to reach it.
func serve(t *testing.T, h http.HandlerFunc) *rest.Config {
	t.Helper()
	srv := httptest.NewTLSServer(h)
	t.Cleanup(srv.Close)
	return &rest.Config{Host: srv.URL, BearerToken: "token", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

func TestDialAPI(t *testing.T) {
	config := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/apis/lighter.dev/v1alpha1/namespaces/ns/images/shop/build" || r.URL.Query().Get("node") != "host2" ||
			r.Header.Get("Upgrade") != Protocol || r.Header.Get("Authorization") != "Bearer token" || r.ProtoMajor != 1 {
			http.Error(w, "wrong request", http.StatusTeapot)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + Protocol + "\r\n\r\nhello")
		_ = rw.Flush()
	})
	conn, err := dialAPI(context.Background(), Config{REST: config, Namespace: "ns", Name: "shop", Node: "host2"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestDialPatience(t *testing.T) {
	busy := &apierrors.StatusError{ErrStatus: metav1.Status{Code: 503, Reason: metav1.StatusReasonServiceUnavailable, Details: &metav1.StatusDetails{RetryAfterSeconds: 1}}}
	tests := []struct {
		name    string
		answers []error // of one try after the other; nil is a connection
		limit   time.Duration
		tries   int
		want    error
	}{
		{"at once", []error{nil}, 5 * time.Second, 1, nil},
		{"asked to come back", []error{busy, busy, nil}, 5 * time.Second, 3, nil},
		{"too often", []error{busy, busy, busy, busy}, 2500 * time.Millisecond, 3, busy},
		{"refused for good", []error{io.ErrUnexpectedEOF, nil}, 5 * time.Second, 1, io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				_, err := patiently(t.Context(), tt.limit, func() (net.Conn, error) {
					tries++
					return nil, tt.answers[tries-1]
				})
				if !errors.Is(err, tt.want) || tries != tt.tries {
					t.Errorf("%v after %d tries, want %v after %d", err, tries, tt.want, tt.tries)
				}
			})
		})
	}
}

func TestDialErrors(t *testing.T) {
	status := func(code int32, reason metav1.StatusReason, message string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(int(code))
			_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status"}, Status: "Failure", Code: code, Reason: reason, Message: message})
		}
	}
	tests := []struct {
		name    string
		handler http.HandlerFunc
		check   func(error) bool
		text    string
	}{
		{"not found", status(404, metav1.StatusReasonNotFound, `images.lighter.dev "shop" not found`), apierrors.IsNotFound, `"shop" not found`},
		{"forbidden", status(403, metav1.StatusReasonForbidden, "you may not"), apierrors.IsForbidden, "you may not"},
		{"no Status", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "gateway is sad", http.StatusBadGateway) }, nil, "502 Bad Gateway: gateway is sad"},
		{"no upgrade", func(http.ResponseWriter, *http.Request) {}, nil, "200 OK"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := dialAPI(context.Background(), Config{REST: serve(t, tt.handler), Namespace: "ns", Name: "shop"})
			if err == nil || !strings.Contains(err.Error(), tt.text) || (tt.check != nil && !tt.check(err)) {
				t.Errorf("error: %v", err)
			}
		})
	}
	t.Run("nobody answers", func(t *testing.T) {
		_, err := dialAPI(context.Background(), Config{REST: &rest.Config{Host: "https://127.0.0.1:1"}})
		if err == nil || !strings.Contains(err.Error(), "connect to 127.0.0.1:1") {
			t.Errorf("error: %v", err)
		}
	})
	t.Run("cancelled while waiting", func(t *testing.T) {
		hang := make(chan struct{})
		defer close(hang)
		config := serve(t, func(http.ResponseWriter, *http.Request) { <-hang })
		u, err := url.Parse(config.Host)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if _, err := Upgrade(ctx, config, u); err == nil {
			t.Error("no error")
		}
	})
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		cfg  Config
		text string
	}{
		{Config{ContextDir: dir}, ""},
		{Config{ContextDir: dir + "/none"}, "does not exist"},
		{Config{ContextDir: dir + "/Dockerfile"}, "is a file"},
		{Config{ContextDir: dir, Dockerfile: "Other"}, "there is no Dockerfile"},
		{Config{ContextDir: dir, Dockerfile: "sub"}, "is a folder, not a Dockerfile"},
	} {
		_, err := tt.cfg.check()
		if (err == nil) != (tt.text == "") || (err != nil && !strings.Contains(err.Error(), tt.text)) {
			t.Errorf("check(%+v): %v, want %q", tt.cfg, err, tt.text)
		}
	}
	if got, err := (Config{}).check(); got != "" || err != nil {
		t.Errorf("without a folder: %q, %v", got, err)
	}
	beside := t.TempDir()
	if _, err := (Config{ContextDir: dir, DockerfileDir: beside}).check(); err == nil || !strings.Contains(err.Error(), beside) {
		t.Errorf("no Dockerfile in a folder of its own: %v", err)
	}
	if _, err := (Config{Progress: "loud", Out: io.Discard}).display(); err == nil {
		t.Error("an unknown progress mode was taken")
	}
}
