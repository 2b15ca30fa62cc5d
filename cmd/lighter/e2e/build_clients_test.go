package e2e

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// offerBuildKit runs "lighter buildkit" for the time of a test, and returns where
// it listens.
func offerBuildKit(t *testing.T, namespace, image string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	serve := ours(t).command(t, 5*time.Minute, "buildkit", "-n", namespace, image, "--listen", "unix://"+path)
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = serve.Process.Signal(os.Interrupt)
		if err := serve.Wait(); err != nil {
			t.Errorf("lighter buildkit: %v", err)
		}
	})
	eventually(t, 30*time.Second, "the socket is there", func() error {
		_, err := os.Stat(path)
		return err
	})
	return "unix://" + path
}

// buildClients makes those that are not in bin yet.
var buildClients = sync.OnceValue(func() error {
	out, err := exec.Command("../../../hack/build-clients.sh").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return err
})

// buildClient is the path of a client of BuildKit.
func buildClient(t *testing.T, name string) string {
	t.Helper()
	needCluster(t)
	path, err := filepath.Abs("../../../bin/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := buildClients(); err != nil {
		t.Skipf("%s cannot be compiled here: %v", name, err)
	}
	return path
}

// TestBuildctl: BuildKit's own client builds an Image over the tunnel, and can
// do nothing else there.
func TestBuildctl(t *testing.T) {
	t.Parallel()
	ns, k := namespace(t), ours(t)
	ctl := tool{"buildctl", buildClient(t, "buildctl")}
	dir := source(t, map[string]string{"Dockerfile": busyboxDockerfile + "ARG A=0\nRUN --mount=type=secret,id=s,required cat /run/secrets/s > /s\n", "s": "hush"})
	k.run(t, "create", "-n", ns, "-f", imageFile(t, "shop", dir))
	socket := offerBuildKit(t, ns, "shop")
	build := []string{"--addr", socket, "build", "--progress", "plain", "--frontend", "dockerfile.v0", "--local", "context=" + dir, "--local", "dockerfile=" + dir}
	secret := []string{"--secret", "id=s,src=" + filepath.Join(dir, "s")}
	out := filepath.Join(t.TempDir(), "out")
	ctl.wants(t, slices.Concat(build, secret, []string{"--output", "type=local,dest=" + out}))
	if text, err := os.ReadFile(filepath.Join(out, "s")); err != nil || string(text) != "hush" {
		t.Errorf("exported %q, %v", text, err)
	}
	image, err := imagesOf(t, ns).Get(t.Context(), "shop", metav1.GetOptions{})
	if err != nil || image.Status.Digest == "" {
		t.Errorf("%+v, %v", image.Status, err)
	}
	ctl.wants(t, []string{"--addr", socket, "du"}, "Total:")
	ctl.wants(t, []string{"--addr", socket, "debug", "workers"}, "linux/")
	for _, test := range []struct {
		args []string
		want string
	}{
		{slices.Concat(build, []string{"--no-cache"}), "secret s: not found"},
		{slices.Concat(build, secret, []string{"--output", "type=image,name=x/y,push=true"}), "does not take an output of type image"},
		{slices.Concat(build, secret, []string{"--opt", "build-arg:A=1"}), "spec.args"},
		{slices.Concat(build, secret, []string{"--allow", "security.insecure"}), "security.insecure"},
		{slices.Concat(build, secret, []string{"--import-cache", "type=registry,ref=x/y"}), "caches to import"},
		{slices.Concat(build, secret, []string{"--opt", "context=https://example.test/x.git"}), "does not take the option context"},
		{[]string{"--addr", socket, "prune"}, "Unimplemented"},
	} {
		ctl.fails(t, test.args, test.want)
	}
	if r := ctl.try(t, "", slices.Concat(build, secret)...); r.code != 0 || !strings.Contains(r.err, "CACHED") {
		t.Errorf("built again: %+v", r)
	}
}

// TestBuildx: Docker's client, by itself and as docker's plugin where there is a
// docker command, builds an Image with its remote driver.
func TestBuildx(t *testing.T) {
	t.Parallel()
	program := buildClient(t, "docker-buildx")
	t.Run("alone", func(t *testing.T) { testBuildx(t, program) })
	if docker, err := exec.LookPath("docker"); err == nil {
		t.Run("plugin", func(t *testing.T) { testBuildx(t, docker, "buildx") })
	}
}

// buildx is the client with settings of its own, among them the plugin.
type buildx struct {
	*testing.T
	argv   []string
	config string
}

func newBuildx(t *testing.T, argv []string) buildx {
	config := t.TempDir()
	plugins := filepath.Join(config, "cli-plugins")
	if err := os.Mkdir(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(buildClient(t, "docker-buildx"), filepath.Join(plugins, "docker-buildx")); err != nil {
		t.Fatal(err)
	}
	return buildx{t, argv, config}
}

// run returns all that it says, and how it ended.
func (b buildx) run(args ...string) (string, error) {
	b.Helper()
	cmd := tool{"buildx", b.argv[0]}.command(b.T, 90*time.Second, slices.Concat(b.argv[1:], args)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+b.config)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (b buildx) wants(args []string, wants ...string) {
	b.Helper()
	out, err := b.run(args...)
	if err != nil {
		b.Fatalf("buildx %v: %v\n%s", args, err, out)
	}
	contains(b.T, "buildx "+strings.Join(args, " "), out, wants...)
}

func (b buildx) fails(args []string, wants ...string) {
	b.Helper()
	out, err := b.run(args...)
	if err == nil {
		b.Errorf("buildx %v: succeeds\n%s", args, out)
	}
	contains(b.T, "buildx "+strings.Join(args, " "), out, wants...)
}

func testBuildx(t *testing.T, argv ...string) {
	ns, k := namespace(t), ours(t)
	dir := source(t, map[string]string{
		"Dockerfile": busyboxDockerfile + "RUN --mount=type=secret,id=s,required cat /run/secrets/s > /s\nCMD [\"cat\", \"/s\"]\n", "s": "hush",
		"Bad": busyboxDockerfile + "RUN echo cannot find the thing && exit 3\n",
	})
	k.run(t, "create", "-n", ns, "-f", imageFile(t, "shop", dir))
	b := newBuildx(t, argv)
	b.wants([]string{"create", "--name", ns, "--driver", "remote", offerBuildKit(t, ns, "shop")})
	b.wants([]string{"inspect", "--bootstrap", ns}, "running", "linux/")
	out := t.TempDir()
	build := func(args ...string) []string {
		return append([]string{"build", "--builder", ns, "--progress", "plain", "--secret", "id=s,src=" + filepath.Join(dir, "s"), dir}, args...)
	}
	b.wants(build("--metadata-file", filepath.Join(out, "meta")), "RUN", "DONE")
	image, err := imagesOf(t, ns).Get(t.Context(), "shop", metav1.GetOptions{})
	if err != nil || image.Status.Digest == "" {
		t.Fatalf("%+v, %v", image.Status, err)
	}
	if meta, err := os.ReadFile(filepath.Join(out, "meta")); err != nil || !strings.Contains(string(meta), image.Status.Digest) {
		t.Errorf("metadata %s, %v; want %s", meta, err, image.Status.Digest)
	}
	k.run(t, "create", "-n", ns, "-f", podFile(t, "one", "shop"))
	eventually(t, time.Minute, "a pod of what was built says it", func() error {
		out, err := output("logs", "-n", ns, "one")
		if err == nil && !strings.Contains(out, "hush") {
			err = errOutput(out)
		}
		return err
	})
	b.wants(build("--output", "type=local,dest="+filepath.Join(out, "local")), "CACHED")
	if text, err := os.ReadFile(filepath.Join(out, "local", "s")); err != nil || string(text) != "hush" {
		t.Errorf("exported %q, %v", text, err)
	}
	b.wants(build("--output", "type=oci,dest="+filepath.Join(out, "oci.tar")), "CACHED")
	if index := archiveFile(t, filepath.Join(out, "oci.tar"), "index.json"); !strings.Contains(index, image.Status.Digest) {
		t.Errorf("the archive has %s, want %s", index, image.Status.Digest)
	}
	b.fails(build("-f", filepath.Join(dir, "Bad")), "Bad:4", "cannot find the thing", "exit code: 3")
	b.fails(build("--build-arg", "A=1"), "spec.args")
	b.fails(build("--push", "-t", "x/y"), "lighter push")
	b.wants([]string{"du", "--builder", ns}, "Total:")
	b.wants([]string{"rm", ns})
}

// archiveFile reads one file of a tar archive.
func archiveFile(t *testing.T, archive, name string) string {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := tar.NewReader(f)
	for {
		header, err := r.Next()
		if err != nil {
			t.Fatalf("%s in %s: %v", name, archive, err)
		}
		if header.Name == name {
			text, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
	}
}

func imageFile(t *testing.T, name, folder string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.yaml")
	text := "apiVersion: lighter.dev/v1alpha1\nkind: Image\nmetadata: {name: " + name + "}\nspec: {source: {path: " + folder + "}}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
