package hostapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/agentapi"
)

// fakeHost is a host with one image in memory, "shop", and no registry but "reg".
type fakeHost struct{}

var errGone = fmt.Errorf("image is not on this host: %w", errdefs.ErrNotFound)

func (fakeHost) Images(_ context.Context, namespace string) ([]agentapi.Image, error) {
	if namespace != "team" {
		return nil, nil
	}
	return []agentapi.Image{{Names: []string{"shop"}}}, nil
}

func (fakeHost) Details(_ context.Context, namespace, ref string) (agentapi.ImageDetails, error) {
	if namespace != "team" || ref != "shop" {
		return agentapi.ImageDetails{}, errGone
	}
	return agentapi.ImageDetails{Manifest: "m"}, nil
}

func (fakeHost) Save(_ context.Context, w io.Writer, _ string, refs ...string) error {
	if !slices.Contains(refs, "shop") {
		return errGone
	}
	_, err := io.WriteString(w, "archive of "+strings.Join(refs, "+"))
	if slices.Contains(refs, "damaged") {
		err = errors.Join(err, errors.New("the disk is bad"))
	}
	return err
}

func (fakeHost) Pull(_ context.Context, _, ref string, auth []agentapi.Credential, report Report) (agentapi.Result, error) {
	if len(auth) == 0 {
		return agentapi.Result{}, fmt.Errorf("registry reg wants credentials: %w", errdefs.ErrPermissionDenied)
	}
	for i := range int64(1000) {
		report(agentapi.Progress{ID: "blob", Status: "Downloading", Current: i, Total: 1000})
	}
	report(agentapi.Progress{ID: "blob", Status: "Downloading", Current: 1000, Total: 1000})
	if ref == "reg/broken" {
		return agentapi.Result{}, errors.New("connection lost")
	}
	return agentapi.Result{Name: ref, Digest: "d"}, nil
}

func (fakeHost) Push(_ context.Context, _, ref, to string, auth []agentapi.Credential, _ Report) (agentapi.Result, error) {
	return agentapi.Result{Name: fmt.Sprint(ref, " to ", to, " as ", auth[0].Username)}, nil
}

func (fakeHost) RemoveImage(_ context.Context, ref string, force bool) (agentapi.Removed, error) {
	if !force {
		return agentapi.Removed{}, fmt.Errorf("pod team/web uses %s: %w", ref, errdefs.ErrConflict)
	}
	return agentapi.Removed{Untagged: []string{ref}}, nil
}

func (fakeHost) PruneImages(_ context.Context, all bool, until time.Duration) (agentapi.Removed, error) {
	return agentapi.Removed{Untagged: []string{fmt.Sprint(all, until)}}, nil
}

func (fakeHost) Import(_ context.Context, namespace, image, ref string, _ agentapi.Edits, archive io.Reader, report Report) (agentapi.Result, error) {
	report(agentapi.Progress{Status: "too early"})
	raw, err := io.ReadAll(archive)
	report(agentapi.Progress{Status: "Unpacking"})
	return agentapi.Result{Name: fmt.Sprint(namespace, "/", image, " ", ref, len(raw))}, err
}

func (fakeHost) Commit(_ context.Context, namespace, image, pod, container string, edits agentapi.Edits, _ Report) (agentapi.Result, error) {
	if pod != "web" {
		return agentapi.Result{}, apierrors.NewNotFound(metav1.Unversioned.WithResource("pods").GroupResource(), pod)
	}
	return agentapi.Result{Name: fmt.Sprint(namespace, "/", image, " ", pod, " ", container, edits.Changes)}, nil
}

func (fakeHost) Usage(context.Context) (agentapi.Usage, error) {
	return agentapi.Usage{Node: "host-1"}, nil
}

// fakeContainers are those of the pod "web".
type fakeContainers struct{}

func (fakeContainers) check(name agentapi.ContainerName) error {
	if name.Namespace != "team" || name.Pod != "web" || name.Container == "nosuch" {
		return fmt.Errorf("no such container: %w", errdefs.ErrNotFound)
	}
	return nil
}

func (f fakeContainers) Top(_ context.Context, name agentapi.ContainerName) ([]agentapi.Process, error) {
	return []agentapi.Process{{PID: 7, Command: []string{"sleep"}}}, f.check(name)
}

func (f fakeContainers) Changes(_ context.Context, name agentapi.ContainerName) ([]agentapi.Change, error) {
	return nil, f.check(name)
}

func (f fakeContainers) Stats(_ context.Context, namespace, pod string) ([]agentapi.ContainerUsage, error) {
	return []agentapi.ContainerUsage{{Container: "c", Memory: 9}}, f.check(agentapi.ContainerName{Namespace: namespace, Pod: pod})
}

func (f fakeContainers) Signal(_ context.Context, name agentapi.ContainerName, _ string) error {
	return f.check(name)
}

func serve(t *testing.T) *httptest.Server {
	t.Helper()
	mux, all := http.NewServeMux(), New(Config{Images: fakeHost{}, Content: fakeHost{}, Containers: fakeContainers{}, Disk: fakeHost{}})
	for _, path := range Paths() {
		mux.Handle(path, all)
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

func ask(t *testing.T, server *httptest.Server, method, path, body string) (code int, text string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

const login = `{"credentials":[{"host":"reg","username":"ann","password":"x"}]}`

func TestPaths(t *testing.T) {
	server := serve(t)
	tests := []struct {
		method, path, body string
		code               int
		text               string // part of the answer
	}{
		{"GET", "/images", "", 200, "[]"},
		{"GET", "/containers/top?namespace=team&pod=web", "", 200, `"command":["sleep"]`},
		{"GET", "/containers/top?namespace=team", "", 400, "pod"},
		{"GET", "/containers/top?namespace=team&pod=web&container=nosuch", "", 404, "no such container"},
		{"GET", "/containers/changes?namespace=team&pod=web", "", 200, "[]"},
		{"GET", "/containers/stats?namespace=team&pod=web", "", 200, `"memory":9`},
		{"GET", "/containers/stats?namespace=other&pod=web", "", 404, "no such container"},
		{"POST", "/containers/signal?namespace=team&pod=web&signal=HUP", "", 200, "{}"},
		{"POST", "/containers/signal?namespace=team&pod=web", "", 400, "signal"},
		{"GET", "/images?namespace=team", "", 200, `"names":["shop"]`},
		{"GET", "/images/inspect?namespace=team&ref=shop", "", 200, `"manifest":"m"`},
		{"GET", "/images/inspect?ref=shop", "", 404, "not on this host"},
		{"GET", "/images/inspect", "", 400, "wants the parameters ref"},
		{"GET", "/images/save?ref=shop&ref=other", "", 200, "archive of shop+other"},
		{"GET", "/images/save?ref=none", "", 404, "not on this host"},
		{"POST", "/images/pull?ref=reg/a", login, 200, `{"done":{"name":"reg/a","digest":"d"}}`},
		{"POST", "/images/pull?ref=reg/a", "", 403, "wants credentials"},
		{"POST", "/images/pull?ref=reg/a", "x", 400, "no list of credentials"},
		{"POST", "/images/pull?ref=reg/broken", login, 200, `{"error":"connection lost"}`},
		{"POST", "/images/push?ref=a&to=reg/b", login, 200, "a to reg/b as ann"},
		{"POST", "/images/import?namespace=team&image=shop&ref=v1", "12345", 200, `"team/shop v15"`},
		{"POST", "/images/import?namespace=team", "12345", 400, "wants the parameters image"},
		{"POST", "/images/commit?namespace=team&image=shop&pod=web&container=c", "", 200, "team/shop web c[]"},
		{"POST", "/images/commit?namespace=team&image=shop&pod=web&change=CMD+a&change=CMD+b", "", 200, "[CMD a CMD b]"},
		{"POST", "/images/commit?namespace=team&image=shop&pod=none", "", 404, `pods`},
		{"POST", "/images/remove?ref=a", "", 409, "pod team/web uses a"},
		{"POST", "/images/remove?ref=a&force", "", 200, `"untagged":["a"]`},
		{"POST", "/images/remove?ref=a&force=maybe", "", 400, "neither true nor false"},
		{"POST", "/images/prune", "", 200, "false 0s"},
		{"POST", "/images/prune?all=true&until=24h", "", 200, "true 24h0m0s"},
		{"POST", "/images/prune?until=yesterday", "", 400, "no duration"},
		{"GET", "/images/prune", "", 405, ""},
		{"GET", "/system/usage", "", 200, `"node":"host-1"`},
	}
	for _, tt := range tests {
		t.Run(tt.method+tt.path, func(t *testing.T) {
			code, text, err := ask(t, server, tt.method, tt.path, tt.body)
			if err != nil || code != tt.code || !strings.Contains(text, tt.text) {
				t.Errorf("%d %s, %v: want %d and %s", code, text, err, tt.code, tt.text)
			}
			var status metav1.Status
			if code/100 != 2 && code != 405 && (json.Unmarshal([]byte(text), &status) != nil || int(status.Code) != code || status.Message == "") {
				t.Errorf("the error is no Status: %s", text)
			}
		})
	}
}

// TestLines: counts are thinned out, but the last one and what came of it are told.
func TestLines(t *testing.T) {
	_, text, err := ask(t, serve(t), "POST", "/images/pull?ref=reg/a", login)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if err != nil || len(lines) < 3 || len(lines) > 100 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	var last agentapi.Progress
	if err := json.Unmarshal([]byte(lines[len(lines)-2]), &last); err != nil || last.Current != 1000 {
		t.Errorf("last count: %s", lines[len(lines)-2])
	}
}

// TestBrokenArchive: an archive that fails in the middle is an error for its reader.
func TestBrokenArchive(t *testing.T) {
	_, text, err := ask(t, serve(t), "GET", "/images/save?ref=shop&ref=damaged", "")
	if err == nil {
		t.Errorf("got %q as if it were whole", text)
	}
}

// TestImportIsReadFirst: a report before the body is read would cut it off.
func TestImportIsReadFirst(t *testing.T) {
	_, text, err := ask(t, serve(t), "POST", "/images/import?namespace=team&image=shop", strings.Repeat("x", 1<<20))
	if err != nil || strings.Contains(text, "too early") || !strings.Contains(text, "Unpacking") || !strings.Contains(text, "1048576") {
		t.Errorf("%s, %v", text, err)
	}
}
