package agentapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// api is what both ways to an agent lead to in these tests.
func api(t *testing.T) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, doc any) { _ = json.NewEncoder(w).Encode(doc) }
	mux.HandleFunc("GET /images", func(w http.ResponseWriter, r *http.Request) {
		answer(w, []Image{{Names: []string{r.FormValue(ParamNamespace)}}})
	})
	mux.HandleFunc("POST /images/pull", func(w http.ResponseWriter, r *http.Request) {
		var sent Credentials
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil || len(sent.Credentials) != 1 {
			t.Errorf("credentials: %+v, %v", sent, err)
		}
		switch r.FormValue(ParamRef) {
		case "good":
			answer(w, Progress{ID: "blob", Status: "Downloading", Current: 1, Total: 2})
			answer(w, Progress{Done: &Result{Name: "good", Digest: "sha256:1"}})
		case "broken":
			answer(w, Progress{Status: "Waiting"})
			answer(w, Progress{Error: "the registry is gone"})
		case "killed":
			answer(w, Progress{Status: "Waiting"})
		default:
			w.WriteHeader(http.StatusNotFound)
			answer(w, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: 404, Reason: metav1.StatusReasonNotFound, Message: "no such image"})
		}
	})
	mux.HandleFunc("POST /images/prune", func(w http.ResponseWriter, r *http.Request) {
		answer(w, Removed{Untagged: []string{r.URL.RawQuery}})
	})
	mux.HandleFunc("GET /images/save", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, strings.Join(r.URL.Query()[ParamRef], "+"))
	})
	mux.HandleFunc("GET /system/usage", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the tunnel is down", http.StatusBadGateway)
	})
	return mux
}

func proxyClient(t *testing.T) *Client {
	t.Helper()
	server := httptest.NewServer(http.StripPrefix("/api/v1/nodes/host-1/proxy", api(t)))
	t.Cleanup(server.Close)
	client, err := NewProxyClient(&rest.Config{Host: server.URL}, "host-1")
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func socketClient(t *testing.T) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: api(t)}}
	server.Start()
	t.Cleanup(server.Close)
	return NewSocketClient(path)
}

func TestClient(t *testing.T) {
	for name, connect := range map[string]func(*testing.T) *Client{"through the API server": proxyClient, "on a socket": socketClient} {
		t.Run(name, func(t *testing.T) {
			client, ctx := connect(t), t.Context()
			if list, err := client.Images(ctx, "shop"); err != nil || len(list) != 1 || list[0].Names[0] != "shop" {
				t.Errorf("images: %v, %v", list, err)
			}
			if removed, err := client.Prune(ctx, true, 24*time.Hour); err != nil || removed.Untagged[0] != "all=true&until=24h0m0s" {
				t.Errorf("prune: %v, %v", removed, err)
			}
			archive, err := client.Save(ctx, "shop", "a", "b")
			if err != nil {
				t.Fatal(err)
			}
			defer archive.Close()
			if content, err := io.ReadAll(archive); err != nil || string(content) != "a+b" {
				t.Errorf("save: %s, %v", content, err)
			}
			if _, err := client.Usage(ctx); err == nil || !strings.Contains(err.Error(), "the tunnel is down") {
				t.Errorf("usage: %v", err)
			}
		})
	}
}

func TestStreams(t *testing.T) {
	client := proxyClient(t)
	tests := []struct {
		ref, err string
		lines    int
		is       func(error) bool
	}{
		{"good", "", 1, nil},
		{"broken", "the registry is gone", 1, nil},
		{"killed", "broke off", 1, nil},
		{"missing", "no such image", 0, apierrors.IsNotFound},
	}
	for _, test := range tests {
		lines := 0
		result, err := client.Pull(t.Context(), "shop", test.ref, Credentials{[]Credential{{Host: "docker.io"}}}, func(Progress) { lines++ })
		switch {
		case lines != test.lines:
			t.Errorf("%s: %d lines, want %d", test.ref, lines, test.lines)
		case test.err == "" && (err != nil || result.Digest != "sha256:1"):
			t.Errorf("%s: %+v, %v", test.ref, result, err)
		case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
			t.Errorf("%s: %v, want %q", test.ref, err, test.err)
		case test.is != nil && !test.is(err):
			t.Errorf("%s: %v is of another kind", test.ref, err)
		}
	}
}

func TestObjectClient(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/apis/lighter.dev/v1alpha1/namespaces/ns/images/shop/content" || r.URL.RawQuery != "change=CMD+a&change=CMD+b&message=why&ref=shop%3Av2" {
			t.Errorf("asked for %s", r.URL)
		}
		sent, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode(Progress{Done: &Result{Name: string(sent)}})
	}))
	defer server.Close()
	client, err := NewObjectClient(&rest.Config{Host: server.URL}, "ns", "shop")
	if err != nil {
		t.Fatal(err)
	}
	if result, err := client.SendContent(t.Context(), strings.NewReader("archive"), "shop:v2", Edits{Message: "why", Changes: []string{"CMD a", "CMD b"}}, nil); err != nil || result.Name != "archive" {
		t.Errorf("%+v, %v", result, err)
	}
}
