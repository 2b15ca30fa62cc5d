package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// imageManifest is an Image with a source in YAML's flow style.
func imageManifest(name, source string) string {
	return fmt.Sprintf("apiVersion: lighter.dev/v1alpha1\nkind: Image\nmetadata: {name: %s}\nspec: {source: {%s}}\n", name, source)
}

// runs starts a pod of an image and wants text in one of its files.
func runs(t *testing.T, ns, image, file, want string) {
	t.Helper()
	create(t, ns, strings.Replace(pod(image, "exec sleep 1d"), "image: toolbox", "image: "+image, 1))
	lighter(t, "wait", "-n", ns, "--for=condition=Ready", "--timeout=180s", "pod/"+image)
	if got, err := inPod(t, ns, image, "cat "+file); err != nil || !strings.Contains(got, want) {
		t.Errorf("%s has %q in %s, %v; want %q", image, got, file, err, want)
	}
	lighter(t, "delete", "pod", "-n", ns, image, "--grace-period=1")
}

// builtCondition waits until an Image's last build ended so.
func builtCondition(t *testing.T, ns, name, reason string) metav1.Condition {
	t.Helper()
	var found metav1.Condition
	eventually(t, time.Minute, "image "+name+" is "+reason, func() error {
		img := imageNamed(t, ns, name)
		built := meta.FindStatusCondition(img.Status.Conditions, v1alpha1.ImageBuilt)
		if built == nil || built.Reason != reason || built.ObservedGeneration != img.Generation {
			return fmt.Errorf("%+v", built)
		}
		found = *built
		return nil
	})
	return found
}

// TestInlineImage: the cluster builds it by itself, whoever made the object; what
// went wrong is in the object, in an Event and in what apply says.
func TestInlineImage(t *testing.T) {
	needCluster(t)
	t.Parallel()
	ns := namespace(t)
	toolbox(t, ns)
	create(t, ns, imageManifest("note", `inline: "FROM toolbox\nRUN echo from-inline > /note\n"`))
	builtCondition(t, ns, "note", v1alpha1.ReasonBuildSucceeded)
	runs(t, ns, "note", "/note", "from-inline")

	bad := imageManifest("bad", `inline: "FROM toolbox\nRUN echo the-reason; exit 3\n"`)
	create(t, ns, bad)
	failure := builtCondition(t, ns, "bad", v1alpha1.ReasonBuildFailed)
	for _, want := range []string{"Dockerfile:2: RUN echo the-reason; exit 3", "exit code: 3", "the-reason"} {
		if !strings.Contains(failure.Message, want) {
			t.Errorf("the condition does not say %q: %s", want, failure.Message)
		}
	}
	eventually(t, 20*time.Second, "an Event tells why", func() error {
		if events := lighter(t, "events", "-n", ns, "--for", "image/bad"); !strings.Contains(events, "BuildFailed") || !strings.Contains(events, "the-reason") {
			return errOutput(events)
		}
		return nil
	})
	path := filepath.Join(t.TempDir(), "bad.yaml")
	writeFiles(t, filepath.Dir(path), map[string]string{"bad.yaml": bad})
	if said := lighterFails(t, "apply", "-n", ns, "-f", path); !strings.Contains(said, "the-reason") || !strings.Contains(said, "image.lighter.dev/bad") {
		t.Errorf("apply says\n%s", said)
	}
	applyText(t, ns, strings.Replace(bad, "exit 3", "exit 0", 1))
	builtCondition(t, ns, "bad", v1alpha1.ReasonBuildSucceeded)
}

// TestImageBeforeItsBase: the order in which Images are made does not matter.
func TestImageBeforeItsBase(t *testing.T) {
	needCluster(t)
	t.Parallel()
	ns := namespace(t)
	create(t, ns, imageManifest("lower", "archive: {}")+"---\n"+imageManifest("upper", `inline: "FROM lower\nLABEL a=b\n"`))
	if waiting := builtCondition(t, ns, "upper", v1alpha1.ReasonBaseUnavailable); !strings.Contains(waiting.Message, "lower") {
		t.Errorf("without its base: %s", waiting.Message)
	}
	create(t, ns, imageManifest("lower", `inline: "FROM scratch\nLABEL c=d\n"`))
	builtCondition(t, ns, "upper", v1alpha1.ReasonBuildSucceeded)
}

// TestConfigMapImage: a change of the ConfigMap is built and rolled out.
func TestConfigMapImage(t *testing.T) {
	needCluster(t)
	t.Parallel()
	ns := namespace(t)
	toolbox(t, ns)
	applyText(t, ns, imageManifest("page", "configMap: {name: files}")+`---
apiVersion: v1
kind: ConfigMap
metadata: {name: files}
data: {Dockerfile: "FROM toolbox\nCOPY page /page\n", page: first}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: page}
spec:
  replicas: 2
  selector: {matchLabels: {app: page}}
  template:
    metadata: {labels: {app: page}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: page}]}
`)
	everyPodHas := func(want string) error {
		pods := readyPods(t, ns, "app=page")
		if len(pods) != 2 {
			return fmt.Errorf("%d pods are ready", len(pods))
		}
		for _, pod := range pods {
			if got, err := inPod(t, ns, pod.Name, "cat /page"); err != nil || got != want {
				return fmt.Errorf("%s has %q, %w", pod.Name, got, err)
			}
		}
		return nil
	}
	if err := everyPodHas("first"); err != nil {
		t.Error(err)
	}
	lighter(t, "patch", "configmap", "files", "-n", ns, "-p", `{"data":{"page":"second"}}`)
	eventually(t, time.Minute, "the new content is rolled out", func() error { return everyPodHas("second") })
	if said := lighterFails(t, "apply", "-n", ns, "-f", manifestFile(t, imageManifest("none", "configMap: {name: none}"))); !strings.Contains(said, `no ConfigMap "none"`) {
		t.Errorf("without a ConfigMap: %s", said)
	}
}

// TestTagImage: another name for an image that exists, at once and without a host.
func TestTagImage(t *testing.T) {
	needCluster(t)
	t.Parallel()
	ns := namespace(t)
	toolbox(t, ns)
	digest := imageNamed(t, ns, "toolbox").Status.Digest
	applyText(t, ns, imageManifest("stable", "image: {ref: toolbox@"+digest+"}"))
	if got := imageNamed(t, ns, "stable"); got.Status.Digest != digest || got.Status.ObservedGeneration != got.Generation {
		t.Errorf("status %+v, want %s", got.Status, digest)
	}
	builtCondition(t, ns, "stable", v1alpha1.ReasonTagged)
	runs(t, ns, "stable", "/etc/passwd", "nobody")
	if table := lighter(t, "get", "images", "-n", ns); !strings.Contains(table, "tag of toolbox") || !strings.Contains(table, "path box") {
		t.Errorf("sources in\n%s", table)
	}
	if said := lighterFails(t, "apply", "-n", ns, "-f", manifestFile(t, imageManifest("loose", "image: {ref: toolbox}"))); !strings.Contains(said, "must be pinned by digest") {
		t.Errorf("a name that may move: %s", said)
	}
}

// TestGitImage: the cluster clones by itself; applied again, it builds what has
// been committed since.
func TestGitImage(t *testing.T) {
	needCluster(t)
	t.Parallel()
	ns := namespace(t)
	toolbox(t, ns)
	repository := newRepository(t)
	commit := func(text string) {
		repository.commit(t, map[string]string{"web/Dockerfile": "FROM toolbox\nCOPY page /page\n", "web/page": text})
	}
	commit("first")
	path := manifestFile(t, imageManifest("site", fmt.Sprintf("git: {url: %q, ref: trunk, path: web}", repository.url)))
	lighter(t, "apply", "-n", ns, "-f", path)
	runs(t, ns, "site", "/page", "first")
	commit("second")
	lighter(t, "apply", "-n", ns, "-f", path)
	runs(t, ns, "site", "/page", "second")
	lighter(t, "build", "-q", "-n", ns, "-t", "by-url", repository.url+"#trunk:web")
	runs(t, ns, "by-url", "/page", "second")
	create(t, ns, imageManifest("lost", fmt.Sprintf("git: {url: %q, ref: nowhere}", repository.url)))
	if failure := builtCondition(t, ns, "lost", v1alpha1.ReasonBuildFailed); !strings.Contains(failure.Message, "nowhere") {
		t.Errorf("a branch that is not there: %s", failure.Message)
	}
}

// TestGitImagePolled: the cluster builds by itself what is committed to a branch, and
// says when it cannot ask.
func TestGitImagePolled(t *testing.T) {
	needCluster(t)
	t.Parallel()
	ns := namespace(t)
	toolbox(t, ns)
	repository := newRepository(t)
	commit := func(text string) {
		repository.commit(t, map[string]string{"Dockerfile": "FROM toolbox\nCOPY page /page\n", "page": text})
	}
	isBuilt := func(text string) {
		t.Helper()
		want := repository.head(t)
		eventually(t, time.Minute, "the commit is built", func() error {
			if status := imageNamed(t, ns, "site").Status; status.ContextHash != want || status.Digest == "" {
				return fmt.Errorf("built from %q, want %s", status.ContextHash, want)
			}
			return nil
		})
		runs(t, ns, "site", "/page", text)
	}
	const source = "git: {url: %q, ref: %s, pollInterval: 10s}"
	commit("first")
	create(t, ns, imageManifest("site", fmt.Sprintf(source, repository.url, "trunk")))
	isBuilt("first")
	commit("second")
	isBuilt("second")
	create(t, ns, imageManifest("lost", fmt.Sprintf(source, repository.url, "nowhere")))
	eventually(t, time.Minute, "an Event says what is missing", func() error {
		if out := lighter(t, "events", "-n", ns, "--for=image/lost"); !strings.Contains(out, "PollFailed") || !strings.Contains(out, "no branch or tag nowhere") {
			return errOutput(out)
		}
		return nil
	})
	if said := lighterFails(t, "apply", "-n", ns, "-f", manifestFile(t, imageManifest("hasty", strings.Replace(fmt.Sprintf(source, repository.url, "trunk"), "10s", "1s", 1)))); !strings.Contains(said, "must be 10s or more") {
		t.Errorf("every second: %s", said)
	}
}

func manifestFile(t *testing.T, manifest string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// repository is one that hosts can clone from this machine.
type repository struct{ dir, url string }

func newRepository(t *testing.T) repository {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skipf("%v: git is what serves the repository, and what hosts clone it with", err)
	}
	base := t.TempDir()
	r := repository{dir: filepath.Join(base, "shop")}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.git(t, "init", "-q", "-b", "trunk")
	listener, err := net.Listen("tcp", net.JoinHostPort(bridgeIP(t), "0"))
	if err != nil {
		t.Fatal(err)
	}
	r.url = fmt.Sprintf("git://%s/shop", listener.Addr())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serveGit(conn, base) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return r
}

// serveGit answers one client, as inetd would have it: what listens stays ours.
func serveGit(conn net.Conn, base string) {
	defer conn.Close()
	daemon := exec.Command("git", "daemon", "--inetd", "--export-all", "--base-path="+base)
	daemon.Stdin, daemon.Stdout = conn, conn
	daemon.WaitDelay = time.Second // until then it waits for more from the client
	_ = daemon.Run()               // the client says what went wrong
}

func (r repository) git(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", r.dir, "-c", "user.name=test", "-c", "user.email=test@example.com"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// head is the commit that is checked out.
func (r repository) head(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("git", "-C", r.dir, "rev-parse", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func (r repository) commit(t *testing.T, files map[string]string) {
	t.Helper()
	writeFiles(t, r.dir, files)
	r.git(t, "add", "-A")
	r.git(t, "commit", "-q", "-m", "change")
}

// bridgeIP is this machine's address on the cluster's network: its first.
func bridgeIP(t *testing.T) string {
	t.Helper()
	host, err := netip.ParseAddr(nodeIPs(t)[0])
	if err != nil {
		t.Fatal(err)
	}
	network, err := host.Prefix(24)
	if err != nil {
		t.Fatal(err)
	}
	return network.Addr().Next().String()
}
