package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lighter.dev/lighter/agent/build/buildclient"
	"lighter.dev/lighter/agent/image"
)

// config is an image's configuration as it stands in the store.
func (h *host) config(name string) map[string]any {
	h.t.Helper()
	ctx := namespaces.WithNamespace(context.Background(), image.Namespace)
	img, err := h.store.Get(ctx, "default", name)
	if err != nil {
		h.t.Fatal(err)
	}
	store := h.store.Backend().Content
	var out struct{ Config map[string]any }
	desc, err := images.Config(ctx, store, ocispec.Descriptor{Digest: img.Manifest, MediaType: ocispec.MediaTypeImageManifest}, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	raw, err := content.ReadBlob(ctx, store, desc)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		h.t.Fatal(err)
	}
	return out.Config
}

// zipped is a small archive.
func zipped(t *testing.T, name, text string) string {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestLanguage: instructions of a Dockerfile, each checked by a RUN step after it.
func TestLanguage(t *testing.T) {
	h := newHost(t)
	h.base()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/file" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte("from the web"))
	}))
	defer web.Close()
	for _, test := range []struct {
		name, dockerfile string
		files            map[string]string
		fails            string
	}{
		{name: "heredocs", dockerfile: "FROM busybox\nRUN <<EOF\necho one > /out\necho two >> /out\nEOF\nCOPY <<one <<\"two\" /\nhome is $PATH\none\nliterally $PATH\ntwo\n" +
			"RUN test \"$(cat /out)\" = \"$(echo one; echo two)\" && test \"$(cat /one)\" = \"home is $PATH\" && test \"$(cat /two)\" = 'literally $PATH'\n"},
		{name: "ADD of a URL", dockerfile: "FROM busybox\nADD --chmod=600 " + web.URL + "/file /web/\nRUN test \"$(cat /web/file)\" = 'from the web' && test $(busybox stat -c %a /web/file) = 600\n"},
		{
			name: "ADD of a URL with a wrong checksum", fails: "digest mismatch",
			dockerfile: "FROM busybox\nADD --checksum=sha256:" + strings.Repeat("0", 64) + " " + web.URL + "/file /web/\n",
		},
		{name: "ADD of a URL that is not there", dockerfile: "FROM busybox\nADD " + web.URL + "/none /web/\n", fails: "404"},
		{
			name: "ADD of an archive", files: map[string]string{"a.tar.gz": zipped(t, "dir/in", "packed")},
			dockerfile: "FROM busybox\nADD a.tar.gz /unpacked/\nCOPY a.tar.gz /copied/\nRUN test $(cat /unpacked/dir/in) = packed && test -f /copied/a.tar.gz\n",
		},
		{
			name:       ".dockerignore",
			files:      map[string]string{".dockerignore": "*.log\n!keep.log\n**/tmp\n", "a.log": "", "keep.log": "", "b": "", "sub/tmp/x": "", "sub/y": ""},
			dockerfile: "FROM busybox\nCOPY . /all\nRUN test ! -e /all/a.log && test -e /all/keep.log && test -e /all/b && test ! -e /all/sub/tmp && test -e /all/sub/y\n",
		},
		{
			name:  "COPY with options",
			files: map[string]string{"f": "x", "dir/a": "a", "dir/b": "b"},
			dockerfile: "FROM busybox AS from\nRUN mkdir /d && echo stage > /d/f\nFROM busybox\nCOPY --link --chmod=751 --chown=7:8 f /new/f\nCOPY --from=from /d/ /d/\nCOPY --from=0 /d/f /again\n" +
				"COPY --exclude=b dir /dir\nCOPY --parents dir/b /parents/\n" +
				"RUN test $(busybox stat -c %a-%u-%g /new/f) = 751-7-8 && test $(cat /d/f) = stage && test $(cat /again) = stage && test ! -e /dir/b && test -e /dir/a && test -e /parents/dir/b\n",
		},
		{name: "scope of ARG", dockerfile: "ARG BASE=busybox\nARG GLOBAL=g\nFROM $BASE AS one\nARG GLOBAL\nARG LOCAL=l\nRUN test $GLOBAL$LOCAL = gl\n" +
			"FROM ${BASE}\nRUN test -z \"$GLOBAL$LOCAL\"\nCOPY --from=one /tmp /x\nARG A=1\nENV A=2\nRUN test $A = 2\n"},
		{name: "scope of ENV", dockerfile: "FROM busybox AS one\nENV A=1 B=\"x y\"\nENV C=$A$B\nFROM one\nRUN test \"$C\" = '1x y'\nFROM busybox\nCOPY --from=one /tmp /x\nRUN test -z \"$A\"\n"},
		{name: "WORKDIR, USER and SHELL", dockerfile: "FROM busybox\nWORKDIR /a\nWORKDIR b\nRUN test $PWD = /a/b\nUSER 12:34\nRUN test $(id -u)-$(id -g) = 12-34\nUSER 0\n" +
			"SHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN true; test $0 = /bin/sh || true\n"},
		{name: "RUN in exec form and RUN --network=none", dockerfile: "FROM busybox\nRUN [\"sh\", \"-c\", \"test \\\"$0\\\" = x\", \"x\"]\nRUN --network=none test \"$(ls /sys/class/net)\" = lo\n"},
		{name: "RUN --network=host", dockerfile: "FROM busybox\nRUN --network=host true\n", fails: "network.host is not allowed"},
		{name: "RUN --security=insecure", dockerfile: "FROM busybox\nRUN --security=insecure true\n", fails: "security.insecure is not allowed"},
		{name: "unknown flag", dockerfile: "FROM busybox\nRUN --loud true\n", fails: "Dockerfile:2"},
		{name: "unknown stage", dockerfile: "FROM busybox AS a\nCOPY --from=7 /x /y\n", fails: "invalid stage index 7"},
		{name: "cycle", dockerfile: "FROM b AS a\nFROM busybox AS b\nCOPY --from=b /x /y\n", fails: "Dockerfile:3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h.image("lang", nil)
			files := map[string]string{"Dockerfile": test.dockerfile}
			for name, text := range test.files {
				files[name] = text
			}
			_, out, err := h.build(context.Background(), "lang", folder(t, files))
			switch {
			case test.fails == "" && err != nil:
				t.Errorf("%v\n%s", err, out)
			case test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)):
				t.Errorf("error %v, want %q", err, test.fails)
			}
		})
	}
}

// TestImageConfig: what a Dockerfile says about running, ONBUILD of the base, and
// labels of the client.
func TestImageConfig(t *testing.T) {
	needRoot(t)
	known := declared{}
	h := &host{t: t, root: t.TempDir(), api: newFakeAPI(), events: &events{}, builds: known}
	h.start()
	t.Cleanup(h.stop)
	h.base()
	h.image("parent", nil)
	h.image("child", nil)
	parent := "FROM busybox\nONBUILD COPY src /src\nONBUILD RUN echo built > /onbuild\nENV A=1\nCMD [\"parent\"]\n"
	base, out, err := h.build(context.Background(), "parent", folder(t, map[string]string{"Dockerfile": parent}))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	known["docker.io/library/parent:latest"] = base.Digest.String()
	child := "FROM parent\nHEALTHCHECK --interval=7s --retries=2 CMD true\nEXPOSE 80/tcp\nVOLUME /data\nSTOPSIGNAL SIGINT\nUSER nobody\nLABEL mine=1 theirs=2\n" +
		"ENTRYPOINT [\"sh\"]\nCMD [\"-c\", \"true\"]\n"
	cfg := h.client("child", folder(t, map[string]string{"Dockerfile": child, "src/f": "source"}), nil)
	cfg.Labels = map[string]string{"theirs": "3"}
	if _, err := buildPlain(t, cfg); err != nil {
		t.Fatal(err)
	}
	if got := h.read("child", "src/f") + h.read("child", "onbuild"); got != "sourcebuilt\n" {
		t.Errorf("ONBUILD of the base made %q", got)
	}
	got := h.config("child")
	for key, want := range map[string]any{
		"Entrypoint": []any{"sh"}, "Cmd": []any{"-c", "true"}, "User": "nobody", "StopSignal": "SIGINT",
		"ExposedPorts": map[string]any{"80/tcp": map[string]any{}}, "Volumes": map[string]any{"/data": map[string]any{}},
		"Labels": map[string]any{"mine": "1", "theirs": "3"},
	} {
		if !reflect.DeepEqual(got[key], want) {
			t.Errorf("%s: %v, want %v", key, got[key], want)
		}
	}
	if check, _ := got["Healthcheck"].(map[string]any); check["Interval"] != float64(7e9) || check["Retries"] != float64(2) || !reflect.DeepEqual(check["Test"], []any{"CMD-SHELL", "true"}) {
		t.Errorf("Healthcheck: %v", got["Healthcheck"])
	}
	if env, _ := got["Env"].([]any); !slices.Contains(env, any("A=1")) {
		t.Errorf("Env: %v", env)
	}
	if got["OnBuild"] != nil {
		t.Errorf("ONBUILD is inherited: %v", got["OnBuild"])
	}
}

// TestStagesInParallel: each of two stages waits for the other.
func TestStagesInParallel(t *testing.T) {
	h := newHost(t)
	h.base()
	h.image("par", nil)
	stage := func(name, mine, other string) string {
		return "FROM busybox AS " + name + "\nRUN --mount=type=cache,target=/c touch /c/" + mine + "; for i in $(seq 300); do test -e /c/" + other + " && break; sleep 0.1; done; test -e /c/" + other + " && touch /" + mine + "\n"
	}
	dir := folder(t, map[string]string{"Dockerfile": stage("a", "one", "two") + stage("b", "two", "one") + "FROM scratch\nCOPY --from=a /one /\nCOPY --from=b /two /\n"})
	if _, out, err := h.build(context.Background(), "par", dir); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestOutputs: results that go to the client, besides the image.
func TestOutputs(t *testing.T) {
	h := newHost(t)
	h.base()
	h.image("out", nil)
	dir, dest := folder(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /sub/f\n", "f": "text"}), t.TempDir()
	cfg := h.client("out", dir, nil)
	var stdout bytes.Buffer
	cfg.Stdout = &stdout
	for _, text := range []string{dest + "/local", "type=tar", "type=oci,dest=" + dest + "/oci.tar", "type=docker,name=x:1,dest=" + dest + "/docker.tar"} {
		output, err := buildclient.ParseOutput(text)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Outputs = append(cfg.Outputs, output)
	}
	res, err := buildPlain(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dest, "local", "sub", "f")); err != nil || string(text) != "text" {
		t.Errorf("local: %q, %v", text, err)
	}
	first := func(raw []byte) string {
		header, err := tar.NewReader(bytes.NewReader(raw)).Next()
		if err != nil {
			t.Error(err)
			return ""
		}
		return header.Name
	}
	if name := first(stdout.Bytes()); name != "sub/" {
		t.Errorf("tar begins with %q", name)
	}
	for _, name := range []string{"oci.tar", "docker.tar"} {
		raw, err := os.ReadFile(filepath.Join(dest, name))
		if err != nil || first(raw) != "blobs/" || !bytes.Contains(raw, []byte("index.json")) {
			t.Errorf("%s: %d bytes, %v", name, len(raw), err)
		}
	}
	if img, err := h.store.Get(context.Background(), "default", "out"); err != nil || img.Target != res.Digest || h.api.status("out").Digest != res.Digest.String() {
		t.Errorf("the image itself: %v, %v, want %s", img.Target, err, res.Digest)
	}
}

// TestPlatforms: another architecture works where nothing of it has to run.
func TestPlatforms(t *testing.T) {
	h := newHost(t)
	h.base()
	h.image("foreign", nil)
	build := func(dockerfile string) error {
		cfg := h.client("foreign", folder(t, map[string]string{"Dockerfile": dockerfile, "f": "\x7fELF\x02\x02\x01" + strings.Repeat("\x00", 100)}), nil)
		cfg.Platform = "linux/s390x"
		_, err := buildPlain(t, cfg)
		return err
	}
	if err := build("FROM --platform=$BUILDPLATFORM busybox AS tools\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\nFROM scratch\nCOPY --from=tools /arch /arch\n"); err != nil {
		t.Fatal(err)
	}
	if err := build("FROM scratch\nCOPY --chmod=755 f /f\nRUN [\"/f\"]\n"); err == nil || !strings.Contains(err.Error(), "binfmt") {
		t.Errorf("a RUN step of another architecture: %v", err)
	}
}
