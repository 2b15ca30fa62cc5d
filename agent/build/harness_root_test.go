package build

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/agent/build/buildclient"
	"lighter.dev/lighter/agent/cgroup"
	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/api/v1alpha1"
)

// needRoot skips where a real build cannot run, and says why.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("building needs root: overlayfs mounts and containers")
	}
	if _, err := findRuntime(""); err != nil {
		t.Skip(err)
	}
}

// needBusybox returns the path of a static busybox, the base of test images.
func needBusybox(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is missing: install busybox-static")
	}
	if out, err := exec.Command("ldd", path).CombinedOutput(); err == nil {
		t.Skipf("busybox is not static (install busybox-static): %s", out)
	}
	return path
}

// fakeAPI is a working Images API in memory, with conflicts.
type fakeAPI struct {
	mu      sync.Mutex
	objects map[string]*v1alpha1.Image
	version int
	// down makes every call fail, as if the API server was away.
	down bool
	// conflicts is how many of the next updates meet a newer object.
	conflicts int
}

func newFakeAPI() *fakeAPI { return &fakeAPI{objects: map[string]*v1alpha1.Image{}} }

func (f *fakeAPI) put(img *v1alpha1.Image) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	img = img.DeepCopy()
	if img.Namespace == "" {
		img.Namespace = "default"
	}
	if old := f.objects[img.Namespace+"/"+img.Name]; old != nil {
		img.UID, img.Generation, img.Status = old.UID, old.Generation+1, old.Status
	} else {
		img.UID, img.Generation = types.UID(fmt.Sprint("uid-", f.version)), 1
	}
	img.ResourceVersion = strconv.Itoa(f.version)
	f.objects[img.Namespace+"/"+img.Name] = img
}

func (f *fakeAPI) Get(_ context.Context, namespace, name string) (*v1alpha1.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, apierrors.NewServiceUnavailable("test: the API is away")
	}
	img := f.objects[namespace+"/"+name]
	if img == nil {
		return nil, apierrors.NewNotFound(v1alpha1.Resource("images"), name)
	}
	return img.DeepCopy(), nil
}

func (f *fakeAPI) UpdateStatus(_ context.Context, img *v1alpha1.Image) (*v1alpha1.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, apierrors.NewServiceUnavailable("test: the API is away")
	}
	old := f.objects[img.Namespace+"/"+img.Name]
	if old == nil {
		return nil, apierrors.NewNotFound(v1alpha1.Resource("images"), img.Name)
	}
	if f.conflicts > 0 || old.ResourceVersion != img.ResourceVersion {
		f.conflicts = max(0, f.conflicts-1)
		return nil, apierrors.NewConflict(v1alpha1.Resource("images"), img.Name, fmt.Errorf("newer"))
	}
	f.version++
	next := old.DeepCopy()
	next.Status = *img.Status.DeepCopy()
	next.ResourceVersion = strconv.Itoa(f.version)
	f.objects[img.Namespace+"/"+img.Name] = next
	return next.DeepCopy(), nil
}

func (f *fakeAPI) status(name string) v1alpha1.ImageStatus {
	img, err := f.Get(context.Background(), "default", name)
	if err != nil {
		return v1alpha1.ImageStatus{}
	}
	return img.Status
}

// events keeps what was recorded, as "Reason message".
type events struct {
	mu  sync.Mutex
	all []string
}

func (e *events) Event(_ runtime.Object, kind, reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, kind+" "+reason+" "+message)
}

func (e *events) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.all...)
}

// host is one builder with its store, served over HTTP.
type host struct {
	t       testing.TB
	root    string
	api     *fakeAPI
	events  *events
	store   *image.Store
	builder *Builder
	server  *httptest.Server
	builds  image.Builds
	peers   image.PeerFinder
	// changeStore and change, if set, change the configurations.
	changeStore func(*image.Config)
	change      func(*Config)
}

func newHost(t testing.TB) *host {
	t.Helper()
	needRoot(t)
	h := &host{t: t, root: t.TempDir(), api: newFakeAPI(), events: &events{}}
	h.start()
	t.Cleanup(h.stop)
	return h
}

func (h *host) start() {
	h.t.Helper()
	if err := h.open(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) open() error {
	log := slog.New(slog.DiscardHandler)
	if h.t != nil {
		log = slog.New(slog.NewTextHandler(testWriter{h.t}, nil))
	}
	var err error
	storeCfg := image.Config{Root: filepath.Join(h.root, "images"), Builds: h.builds, Peers: h.peers, Log: log}
	if h.changeStore != nil {
		h.changeStore(&storeCfg)
	}
	h.store, err = image.Open(context.Background(), storeCfg)
	if err != nil {
		return err
	}
	cfg := Config{Root: filepath.Join(h.root, "build"), Store: h.store, NodeName: "host1", Images: h.api, Events: h.events, CgroupParent: h.cgroup(), Log: log}
	if h.change != nil {
		h.change(&cfg)
	}
	h.builder, err = New(context.Background(), cfg)
	if err != nil {
		return err
	}
	h.server = httptest.NewServer(h.builder.Handler())
	return nil
}

// holders is a PeerFinder with fixed answers.
type holders []image.Peer

func (p holders) Holders(context.Context, digest.Digest) []image.Peer { return p }

// serveContent serves a store to peers, here without TLS.
func serveContent(t testing.TB, s *image.Store) image.Peer {
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	return image.Peer{Name: "peer", URL: srv.URL}
}

// cgroup is that of the host's RUN steps, also in an agent that is another process.
func (h *host) cgroup() string {
	return "/lighter-test" + strings.ReplaceAll(h.root, "/", "-")
}

func (h *host) stop() {
	if h.server == nil {
		return
	}
	defer h.removeCgroup()
	if err := h.builder.Close(); err != nil {
		h.t.Error(err)
	}
	h.server.Close()
	if err := h.store.Close(); err != nil {
		h.t.Error(err)
	}
	h.server = nil
}

func (h *host) removeCgroup() {
	tree, err := cgroup.New(h.cgroup())
	if err != nil {
		return // a machine without cgroups
	}
	if err := tree.Remove(context.Background(), h.cgroup()); err != nil {
		h.t.Error(err)
	}
}

// image puts an Image object into the API.
func (h *host) image(name string, change func(*v1alpha1.ImageSpec)) {
	h.imageIn("default", name, change)
}

func (h *host) imageIn(namespace, name string, change func(*v1alpha1.ImageSpec)) {
	img := &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}}
	img.Spec.Source.Path = "."
	if change != nil {
		change(&img.Spec)
	}
	h.api.put(img)
}

// build builds the Image name from dir and returns the plain progress output.
func (h *host) build(ctx context.Context, name, dir string) (buildclient.Result, string, error) {
	var out bytes.Buffer
	res, err := buildclient.Build(ctx, h.client(name, dir, &out))
	return res, out.String(), err
}

func (h *host) client(name, dir string, out io.Writer) buildclient.Config {
	return h.clientIn("default", name, dir, out)
}

func (h *host) clientIn(namespace, name, dir string, out io.Writer) buildclient.Config {
	return buildclient.Config{
		Namespace: namespace, Name: name, ContextDir: dir, Progress: buildclient.Plain, Out: out,
		Dial: func(ctx context.Context) (net.Conn, error) {
			u, err := url.Parse(h.server.URL + "/build/" + namespace + "/" + name)
			if err != nil {
				return nil, err
			}
			return buildclient.Upgrade(ctx, &rest.Config{Host: h.server.URL}, u)
		},
	}
}

// base imports a busybox root file system under the name "busybox".
func (h *host) base() {
	h.t.Helper()
	if _, err := h.store.Import(context.Background(), bytes.NewReader(busyboxTar(h.t)), "busybox", ""); err != nil {
		h.t.Fatal(err)
	}
}

func busyboxTar(t testing.TB) []byte {
	t.Helper()
	bin, err := os.ReadFile(needBusybox(t))
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	add := func(hdr *tar.Header, body []byte) {
		hdr.Size, hdr.ModTime = int64(len(body)), time.Unix(1, 0)
		if err := tw.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin/", "tmp/", "etc/", "proc/", "sys/", "dev/"} {
		add(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, bin)
	for _, applet := range []string{"sh", "cat", "echo", "ls", "sleep", "seq", "false", "true", "touch", "date", "mkdir", "id"} {
		add(&tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// folder writes files into a new folder.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		write(t, filepath.Join(dir, name), body)
	}
	return dir
}

func write(t testing.TB, path, body string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

// testWriter sends log lines to the test's output.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimRight(p, "\n"))
	return len(p), nil
}

func TestMain(m *testing.M) {
	image.RouteLibraryLogs(slog.New(slog.DiscardHandler))
	if root := os.Getenv(childRoot); root != "" {
		runChild(root)
	}
	os.Exit(m.Run())
}
