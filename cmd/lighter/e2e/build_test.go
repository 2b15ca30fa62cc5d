package e2e

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/client/clientset"
	typed "lighter.dev/lighter/api/client/clientset/typed/api/v1alpha1"

	"k8s.io/client-go/tools/clientcmd"
)

// busyboxDockerfile is the base of images that need no registry.
const busyboxDockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n"

// source is a build context with a static busybox.
func source(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	bin, err := os.ReadFile("../../../manifests/guestbook/app/busybox")
	if err != nil {
		t.Skipf("no static busybox: %v: hack/guestbook-base.sh makes it", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "busybox"), bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// archiveOf is a tar of files.
func archiveOf(t *testing.T, files map[string]string) string {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.String()
}

// imagesOf is the API of a namespace's Images.
func imagesOf(t *testing.T, namespace string) typed.ImageInterface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", shared.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c, err := clientset.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c.LighterV1alpha1().Images(namespace)
}

func ours(t *testing.T) tool {
	t.Helper()
	needCluster(t)
	return tool{"lighter", shared.binary}
}

// TestDockerBuild: names, arguments, a secret, labels; built again from the
// cache; run by both names.
func TestDockerBuild(t *testing.T) {
	t.Parallel()
	ns, k := namespace(t), ours(t)
	dir := source(t, map[string]string{
		"docker/Prod": strings.Replace(busyboxDockerfile, "scratch", "scratch AS shop", 1) + "ARG WHO=nobody\nRUN --mount=type=secret,id=token,required echo $WHO $(cat /run/secrets/token | wc -c) > /out\nCMD [\"cat\", \"/out\"]\nFROM scratch\nRUN never\n",
		"token":       "four",
	})
	digest := filepath.Join(t.TempDir(), "digest")
	args := []string{"build", "-n", ns, "-t", "shop:v1", "-t", "shop", "-f", filepath.Join(dir, "docker/Prod"), "--target", "shop", "--build-arg", "WHO=e2e",
		"--secret", "id=token,src=" + filepath.Join(dir, "token"), "--label", "team=a", "--iidfile", digest, "--progress", "plain", dir}
	first := k.try(t, "", args...)
	if first.code != 0 {
		t.Fatalf("exit code %d\n%s%s", first.code, first.out, first.err)
	}
	id, err := os.ReadFile(digest)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "standard output", first.out, "shop:v1 built: "+string(id), "shop:latest built: "+string(id))
	contains(t, "progress", first.err, "RUN", "DONE")
	again := k.try(t, "", append(args, "-q")...)
	if again.code != 0 || strings.TrimSpace(again.out) != string(id) || strings.Contains(again.err, "DONE") {
		t.Errorf("built again, quietly: %+v, want %s", again, id)
	}
	image, err := imagesOf(t, ns).Get(t.Context(), "shop-v1", metav1.GetOptions{})
	if err != nil || image.Status.Digest != string(id) || image.Spec.Source.Path != dir || image.Spec.Dockerfile != "docker/Prod" {
		t.Errorf("object: %+v, %v", image, err)
	}
	for pod, name := range map[string]string{"one": "shop:v1", "two": "shop"} {
		k.run(t, "create", "-n", ns, "-f", podFile(t, pod, name))
		eventually(t, time.Minute, "pod of "+name+" ends", func() error {
			out, err := output("logs", "-n", ns, pod)
			if err == nil && !strings.Contains(out, "e2e 4") {
				err = errOutput(out)
			}
			return err
		})
	}
}

type errOutput string

func (e errOutput) Error() string { return "output: " + string(e) }

func podFile(t *testing.T, name, image string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pod.yaml")
	text := "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec:\n  restartPolicy: Never\n  containers: [{name: c, image: \"" + image + "\"}]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBuildFailure: the line, the output and the exit code; the digest stays.
func TestBuildFailure(t *testing.T) {
	t.Parallel()
	ns, k := namespace(t), ours(t)
	dir := source(t, map[string]string{"Dockerfile": busyboxDockerfile})
	good := strings.TrimSpace(k.run(t, "build", "-q", "-n", ns, "-t", "shop", dir))
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(busyboxDockerfile+"RUN echo cannot find the thing && exit 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := k.try(t, "", "build", "-n", ns, "-t", "shop", dir)
	if r.code != 1 {
		t.Errorf("exit code %d", r.code)
	}
	contains(t, "a failing build", r.err, "Dockerfile:4", "cannot find the thing", "exit code: 3")
	image, err := imagesOf(t, ns).Get(t.Context(), "shop", metav1.GetOptions{})
	if err != nil || image.Status.Digest != good {
		t.Errorf("digest %s, %v; want %s", image.Status.Digest, err, good)
	}
}

// TestBuildContexts: standard input, results that come back, names that move.
func TestBuildContexts(t *testing.T) {
	t.Parallel()
	ns, k := namespace(t), ours(t)
	dir := source(t, map[string]string{"Dockerfile": busyboxDockerfile})
	build := func(stdin string, args ...string) result {
		r := k.try(t, stdin, append([]string{"build", "-n", ns}, args...)...)
		if r.code != 0 {
			t.Fatalf("build %v: exit code %d\n%s%s", args, r.code, r.out, r.err)
		}
		return r
	}
	build("", "-t", "base:v1", "-t", "base", dir)
	build("FROM base\nRUN echo inline > /from\n", "-t", "inline", "-")
	build("FROM base\nCOPY busybox /copy\n", "-t", "stdin-file", "-f", "-", dir)
	build(archiveOf(t, map[string]string{"Dockerfile": "FROM inline\nCOPY x /x\n", "x": "from a stream"}), "-t", "streamed", "-")
	out := filepath.Join(t.TempDir(), "out")
	r := build("FROM streamed AS files\nRUN cp /x /from /busybox-was-here 2>/dev/null; true\nFROM scratch\nCOPY --from=files /x /from /\n", "-o", out, "-")
	if text, err := os.ReadFile(filepath.Join(out, "x")); err != nil || string(text) != "from a stream" || !strings.HasPrefix(r.out, "sha256:") {
		t.Errorf("--output: %q, %v, printed %q", text, err, r.out)
	}
	r = build("FROM scratch\nCOPY --from=inline /from /\n", "-o", "-", "-")
	if header, err := tar.NewReader(strings.NewReader(r.out)).Next(); err != nil || header.Name != "from" {
		t.Errorf("an archive on standard output: %+v, %v", header, err)
	}
	list, err := imagesOf(t, ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, image := range list.Items {
		if strings.HasPrefix(image.Name, "untagged") {
			t.Errorf("a build with --output alone left %s", image.Name)
		}
	}
	r = build("FROM base:v1\nRUN echo 2 > /two\n", "-t", "base:v2", "-t", "base", "-")
	contains(t, "names that move", r.out, "base:v2 built", "base:latest built")
	build("FROM base\nRUN cat /two\n", "-t", "check", "-")
	build("FROM base:v1\nRUN ! test -e /two\n", "-t", "check", "-")
}

// TestBuildWhereTheCacheIs: whoever built an image last builds it again, though
// the cluster would have chosen another host for the first build, and from its
// cache.
func TestBuildWhereTheCacheIs(t *testing.T) {
	t.Parallel()
	ns, k := namespace(t), ours(t)
	dir := source(t, map[string]string{"Dockerfile": busyboxDockerfile + "COPY page /page\n", "page": "0"})
	for i, host := range everyHost {
		k.run(t, "build", "-n", ns, "-t", "shop", "--node", host, dir)
		if err := os.WriteFile(filepath.Join(dir, "page"), []byte(host), 0o600); err != nil {
			t.Fatal(err)
		}
		r := k.try(t, "", "build", "-n", ns, "-t", "shop", "--progress", "plain", dir)
		if r.code != 0 {
			t.Fatalf("exit code %d\n%s%s", r.code, r.out, r.err)
		}
		contains(t, fmt.Sprintf("progress of build %d", 2*i+1), r.err, "CACHED")
		image, err := imagesOf(t, ns).Get(t.Context(), "shop", metav1.GetOptions{})
		if err != nil || image.Status.NodeName != host {
			t.Errorf("built by %s, %v; the cache is on %s", image.Status.NodeName, err, host)
		}
	}
}

// TestBuildSSH: a step reaches the client's SSH agent, and only if it asks for it.
func TestBuildSSH(t *testing.T) {
	t.Parallel()
	ns, k := namespace(t), ours(t)
	socket := filepath.Join(t.TempDir(), "agent")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dir := source(t, map[string]string{
		"Dockerfile": busyboxDockerfile + "RUN test -z \"$SSH_AUTH_SOCK\"\nRUN --mount=type=ssh,required test -S \"$SSH_AUTH_SOCK\" # " + ns + "\n",
	})
	if r := k.try(t, "", "build", "-n", ns, "-t", "shop", dir); r.code != 1 || !strings.Contains(r.err, "ssh") {
		t.Errorf("without --ssh: exit code %d\n%s", r.code, r.err)
	}
	k.run(t, "build", "-n", ns, "-t", "shop", "--ssh", "default="+socket, dir)
}

// TestBuildMistakes: each is named; nothing is built.
func TestBuildMistakes(t *testing.T) {
	t.Parallel()
	ns, k := namespace(t), ours(t)
	dir := source(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY busybox /\n", "Syntax": "FROM scratch\nCOPI a b\n", "Copy": "FROM scratch\nCOPY none /\n",
		"Secret": "FROM scratch\nCOPY busybox /bin/\nRUN --mount=type=secret,id=token,required [\"/bin/busybox\", \"true\"]\n",
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, test := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"/nowhere"}, 1, []string{"/nowhere", "no such folder"}},
		{[]string{"-f", at("None"), dir}, 1, []string{"there is no Dockerfile", "None"}},
		{[]string{"-f", at("Syntax"), dir}, 1, []string{"Syntax:2", "COPI"}},
		{[]string{"-f", at("Copy"), dir}, 1, []string{"Copy:2", "none", "not found"}},
		{[]string{"-f", at("Secret"), dir}, 1, []string{"Secret:3", "token: not found"}},
		{[]string{"--target", "nope", dir}, 1, []string{"nope"}},
		{[]string{"--secret", "id=token,src=/nowhere", dir}, 1, []string{"--secret", "/nowhere"}},
		{[]string{"--node", "host-9", dir}, 1, []string{"host-9"}},
		{[]string{"--output", "type=image,push=true", dir}, 2, []string{"--push"}},
		{[]string{"--progress", "loud", dir}, 1, []string{"loud"}},
		{[]string{"--build-arg", "a-b=c", dir}, 1, []string{"spec.args"}},
	} {
		r := k.try(t, "", append([]string{"build", "-n", ns, "-t", "bad"}, test.args...)...)
		if r.code != test.code {
			t.Errorf("build %v: exit code %d, want %d\n%s", test.args, r.code, test.code, r.err)
		}
		contains(t, "build "+strings.Join(test.args, " "), r.out+r.err, test.want...)
	}
	if r := k.try(t, "", "build", "-n", ns, "-t", "Bad", dir); r.code != 1 || !strings.Contains(r.err, "Bad") {
		t.Errorf("a wrong name: %+v", r)
	}
}

// TestDebianBase: a distribution's base image without any registry, from its
// packages, imported, built on and run.
func TestDebianBase(t *testing.T) {
	t.Parallel()
	ns, k := namespace(t), ours(t)
	archive := filepath.Join(t.TempDir(), "rootfs.tar")
	out, err := exec.Command("../../../hack/debian-base.sh", archive).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 {
		t.Skipf("no Debian base can be made here: %s", out)
	} else if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	k.run(t, "import", "-n", ns, archive, "debian:base")
	dir := source(t, map[string]string{"Dockerfile": "FROM debian:base\nRUN sh -c 'dpkg --version | head -n 1' && apt-get --version | head -n 1\nCMD [\"sh\", \"-c\", \". /etc/os-release; echo runs $ID\"]\n"})
	k.run(t, "build", "-n", ns, "-t", "on-debian", dir)
	k.run(t, "create", "-n", ns, "-f", podFile(t, "debian", "on-debian"))
	eventually(t, time.Minute, "the pod says what it runs", func() error {
		out, err := output("logs", "-n", ns, "debian")
		if err == nil && !strings.Contains(out, "runs debian") {
			err = errOutput(out)
		}
		return err
	})
}
