package images

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/types"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// registry answers the version check as registries with Basic or Bearer do; ann's
// password is "right".
func registry(scheme string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		right := user == "ann" && password == "right"
		switch {
		case r.URL.Path == "/token":
			if r.Method == http.MethodPost {
				right = r.FormValue("username") == "ann" && r.FormValue("password") == "right"
			}
			if !right {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprint(w, `{"token":"t","access_token":"t","refresh_token":"identity"}`)
		case right && scheme == "Basic", r.Header.Get("Authorization") == "Bearer t":
			fmt.Fprint(w, "{}")
		default:
			challenge := `Basic realm="test"`
			if scheme == "Bearer" {
				challenge = fmt.Sprintf(`Bearer realm="%s://%s/token",service="test"`, map[bool]string{true: "https", false: "http"}[r.TLS != nil], r.Host)
			}
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
}

// certificate writes a TLS server's certificate into a file.
func certificate(t *testing.T, server *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	content := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVerify(t *testing.T) {
	for _, scheme := range []string{"Basic", "Bearer"} {
		secure, plain := httptest.NewTLSServer(registry(scheme)), httptest.NewServer(registry(scheme))
		defer secure.Close()
		defer plain.Close()
		tests := []struct {
			name     string
			server   *httptest.Server
			ca       string
			password string
			err      string
		}{
			{"TLS", secure, certificate(t, secure), "right", ""},
			{"wrong password", secure, certificate(t, secure), "wrong", "refused the user name or password"},
			{"unknown authority", secure, "", "right", "--ca-file"},
			{"this machine, without TLS", plain, "", "right", ""},
			{"this machine, wrong password", plain, "", "wrong", "refused the user name or password"},
		}
		for _, test := range tests {
			t.Run(scheme+" "+test.name, func(t *testing.T) {
				v, err := newVerifier(test.ca)
				if err != nil {
					t.Fatal(err)
				}
				kept, err := v.verify(t.Context(), test.server.Listener.Addr().String(), types.AuthConfig{Username: "ann", Password: test.password})
				if (err == nil) != (test.err == "") || (err != nil && !strings.Contains(err.Error(), test.err)) {
					t.Fatalf("%v, want %q", err, test.err)
				}
				if token := kept.IdentityToken; err == nil && (token == "identity") != (scheme == "Bearer") {
					t.Errorf("keeps %+v", kept)
				}
			})
		}
	}
	if _, err := newVerifier("/nowhere"); err == nil {
		t.Error("a missing CA file was taken")
	}
	none := httptest.NewServer(http.NotFoundHandler())
	defer none.Close()
	v, _ := newVerifier("")
	if _, err := v.verify(t.Context(), none.Listener.Addr().String(), types.AuthConfig{}); err == nil || !strings.Contains(err.Error(), "is it a registry?") {
		t.Errorf("a web server: %v", err)
	}
}

// loginsIn are logins in a folder of the test's own.
func loginsIn(t *testing.T, content string) (*Logins, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, config.ConfigFileName)
	if content != "" {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &Logins{file}, path
}

func TestLogin(t *testing.T) {
	server := httptest.NewTLSServer(registry("Basic"))
	defer server.Close()
	host := server.Listener.Addr().String()
	logins, path := loginsIn(t, `{"detachKeys":"ctrl-e"}`)
	var out bytes.Buffer
	options := LoginOptions{Registry: host, Username: "ann", PasswordStdin: true, In: strings.NewReader("wrong\n"), CAFile: certificate(t, server), Out: &out, Err: io.Discard}
	if _, err := logins.Login(t.Context(), options); !errors.Is(err, errRefused) {
		t.Errorf("wrong password: %v", err)
	}
	if found, err := logins.For(host); err != nil || found.Credentials != nil {
		t.Errorf("kept a wrong password: %+v, %v", found, err)
	}
	options.In = strings.NewReader("right\n")
	if _, err := logins.Login(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	wants(t, "login", out.String(), "Login Succeeded")
	again, err := config.Load(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	found, err := (&Logins{again}).ForImage(host + "/team/shop:v1")
	if err != nil || len(found.Credentials) != 1 || found.Credentials[0].Password != "right" || found.Credentials[0].Host != host {
		t.Errorf("read again: %+v, %v", found, err)
	}
	info, err := os.Stat(path)
	content, _ := os.ReadFile(path)
	if err != nil || info.Mode().Perm() != 0o600 || !strings.Contains(string(content), "ctrl-e") {
		t.Errorf("mode %v, %s, %v", info.Mode(), content, err)
	}
	for _, want := range []string{"Removing login credentials", "Not logged in"} {
		out.Reset()
		if err := logins.Logout(&out, host); err != nil {
			t.Error(err)
		}
		wants(t, "logout", out.String(), want)
	}
}

func TestLoginAsks(t *testing.T) {
	logins, _ := loginsIn(t, "")
	tests := []struct {
		options LoginOptions
		want    string
	}{
		{LoginOptions{}, "there is no terminal to ask on"},
		{LoginOptions{Username: "ann"}, "there is no terminal to ask on"},
		{LoginOptions{PasswordStdin: true}, "needs --username"},
		{LoginOptions{Username: "ann", Password: "x", PasswordStdin: true}, "no --password"},
		{LoginOptions{Username: "ann", PasswordStdin: true}, "must not be empty"},
	}
	for _, test := range tests {
		test.options.Registry, test.options.In, test.options.Err = hub, strings.NewReader(""), io.Discard
		if _, err := test.options.ask(t.Context(), logins); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.options, err, test.want)
		}
	}
}

// TestCredentialHelper: what Docker's configuration names as a helper is asked.
func TestCredentialHelper(t *testing.T) {
	dir := t.TempDir()
	helper := filepath.Join(dir, "docker-credential-test")
	script := "#!/bin/sh\n[ \"$1\" = get ] && echo '{\"Username\":\"ann\",\"Secret\":\"from helper\"}'\n"
	if err := os.WriteFile(helper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	logins, _ := loginsIn(t, `{"credHelpers":{"registry.example":"test"}}`)
	found, err := logins.For("registry.example")
	if err != nil || len(found.Credentials) != 1 || found.Credentials[0].Password != "from helper" {
		t.Errorf("%+v, %v", found, err)
	}
	if found, err := logins.For("other.example"); err != nil || found.Credentials != nil {
		t.Errorf("another registry: %+v, %v", found, err)
	}
}

func TestCleanRegistry(t *testing.T) {
	for registry, want := range map[string]string{
		"": hub, "https://index.docker.io/v1/": hub, "docker.io": hub, "https://registry.example:5000/v2/": "registry.example:5000", "registry.example": "registry.example",
	} {
		if got := CleanRegistry(registry); got != want {
			t.Errorf("%s: %s, want %s", registry, got, want)
		}
	}
}

func TestPullSecret(t *testing.T) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: defaultAccount, Namespace: "default"}}
	opaque := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "opaque", Namespace: "default"}, Type: corev1.SecretTypeOpaque}
	d := newDesk(t, nil, account, opaque)
	for _, registry := range []string{"a.example", "b.example:5000", "a.example"} { // the third time changes nothing
		if err := d.PullSecret(t.Context(), "pull", registry, types.AuthConfig{Username: "ann", Password: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	secret, err := d.Kube.CoreV1().Secrets("default").Get(t.Context(), "pull", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Auths map[string]map[string]string }
	if err := json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &doc); err != nil || len(doc.Auths) != 2 || doc.Auths["b.example:5000"]["username"] != "ann" {
		t.Errorf("%s, %v", secret.Data, err)
	}
	account, err = d.Kube.CoreV1().ServiceAccounts("default").Get(t.Context(), defaultAccount, metav1.GetOptions{})
	if err != nil || len(account.ImagePullSecrets) != 1 || account.ImagePullSecrets[0].Name != "pull" {
		t.Errorf("%+v, %v", account.ImagePullSecrets, err)
	}
	if err := d.PullSecret(t.Context(), "opaque", "a.example", types.AuthConfig{}); err == nil || !strings.Contains(err.Error(), "give another name") {
		t.Errorf("a secret of another type: %v", err)
	}
	if name := PullSecretName("[::1]:5000"); name != "pull-1-5000" {
		t.Error(name)
	}
}
