package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// digestOfTag is what a name means in a namespace.
func digestOfTag(t *testing.T, ns, name string) string {
	t.Helper()
	return strings.TrimSpace(tool{"lighter", shared.binary}.run(t, "images", "-n", ns, "-q", "--no-trunc", name))
}

// runsAs makes a pod of an image with a command and returns what it prints.
func runsAs(t *testing.T, ns, name, image, line string) string {
	t.Helper()
	command, err := json.Marshal([]string{"sh", "-c", line})
	if err != nil {
		t.Fatal(err)
	}
	create(t, ns, "apiVersion: v1\nkind: Pod\nmetadata: {name: "+name+"}\nspec: {restartPolicy: Never, containers: [{name: c, image: \""+image+"\", command: "+string(command)+"}]}\n")
	phase, log := untilDone(t, ns, name)
	if phase != corev1.PodSucceeded {
		t.Errorf("pod %s of %s is %s: %s", name, image, phase, log)
	}
	return strings.TrimSpace(log)
}

func TestDockerImages(t *testing.T) {
	ns := namespace(t)
	t.Parallel()
	toolbox(t, ns)
	contains(t, "images", lighter(t, "images", "-n", ns), "REPOSITORY", "TAG", "DIGEST", "CREATED", "SIZE", "HOSTS", "toolbox", "latest", " ago", "MB", "host-")
	contains(t, "images -A", lighter(t, "images", "-A"), "NAMESPACE", ns)
	digest := digestOfTag(t, ns, "toolbox")
	if short := strings.TrimSpace(lighter(t, "images", "-n", ns, "-q", "toolbox")); !strings.HasPrefix(digest, "sha256:"+short) || len(short) != 12 {
		t.Errorf("short digest %q of %q", short, digest)
	}
	var line struct{ Repository, Tag, Digest string }
	if err := json.Unmarshal([]byte(lighter(t, "images", "-n", ns, "--format", "json", "toolbox")), &line); err != nil || line.Digest != digest || line.Tag != "latest" {
		t.Errorf("%+v, %v", line, err)
	}
	if out := lighter(t, "images", "-n", ns, "-q", "tool*:v9"); out != "" {
		t.Errorf("a tag that is not there: %s", out)
	}
}

func TestDockerTag(t *testing.T) {
	ns := namespace(t)
	t.Parallel()
	toolbox(t, ns)
	lighter(t, "tag", "-n", ns, "toolbox", "tools:v1")
	if a, b := digestOfTag(t, ns, "toolbox"), digestOfTag(t, ns, "tools:v1"); a != b || a == "" {
		t.Errorf("toolbox is %q, tools:v1 %q", a, b)
	}
	lighter(t, "tag", "-n", ns, "tools:v1", "tools:v1") // is what it is
	lighter(t, "tag", "-n", ns, "tools:v1", "tools-v1") // whose object would have the same name
	contains(t, "objects", lighter(t, "get", "images", "-n", ns, "-o", "name"), "image.lighter.dev/tools-v1\n", "image.lighter.dev/tools-v1-")
	contains(t, "tag over a build", lighterFails(t, "tag", "-n", ns, "tools:v1", "toolbox"), "built from source")
	contains(t, "tag of nothing", lighterFails(t, "tag", "-n", ns, "tools:v2", "x"), "no such image", "near it: tools:v1, tools-v1:latest")
	if out := runsAs(t, ns, "tagged", "tools:v1", "echo runs"); out != "runs" {
		t.Errorf("the pod prints %q", out)
	}
}

func TestDockerRmi(t *testing.T) {
	ns := namespace(t)
	t.Parallel()
	toolbox(t, ns)
	lighter(t, "tag", "-n", ns, "toolbox", "tools:v1")
	digest := digestOfTag(t, ns, "toolbox")
	contains(t, "rmi by digest", lighterFails(t, "rmi", "-n", ns, digest), "several names")
	contains(t, "rmi of nothing", lighterFails(t, "rmi", "-n", ns, "tools:v2"), "no such image", "tools:v1")
	create(t, ns, "apiVersion: v1\nkind: Pod\nmetadata: {name: user}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: toolbox}]}\n")
	untilReady(t, ns, "user")
	contains(t, "rmi in use", lighterFails(t, "rmi", "-n", ns, "toolbox"), "running pods use it: user", "-f")
	contains(t, "rmi of one name", lighter(t, "rmi", "-n", ns, "tools:v1"), "Untagged: tools:v1")
	contains(t, "rmi by force", lighter(t, "rmi", "-n", ns, "-f", "toolbox"), "Untagged: toolbox:latest")
	if out := lighter(t, "get", "images", "-n", ns, "-o", "name"); out != "" {
		t.Errorf("objects are left: %s", out)
	}
}

// TestDockerSave: an archive of two images loads into another namespace.
func TestDockerSave(t *testing.T) {
	from, to := namespace(t), namespace(t)
	t.Parallel()
	toolbox(t, from)
	lighter(t, "tag", "-n", from, "toolbox", "tools:v1")
	digest := digestOfTag(t, from, "toolbox")
	path := filepath.Join(t.TempDir(), "images.tar")
	lighter(t, "save", "-n", from, "-o", path, "toolbox", "tools:v1")
	contains(t, "load", lighter(t, "load", "-n", to, "-i", path), "Loaded image: ", "toolbox:latest", "tools:v1")
	for _, name := range []string{"toolbox", "tools:v1"} {
		if got := digestOfTag(t, to, name); got != digest {
			t.Errorf("%s is %q, want %q", name, got, digest)
		}
	}
	if out := runsAs(t, to, "loaded", "tools:v1", "echo runs"); out != "runs" {
		t.Errorf("the pod prints %q", out)
	}
	// Of an Image's names those that are asked for: one, or all tags of a repository.
	lighter(t, "patch", "image", "tools-v1", "-n", from, "--type=merge", "-p", `{"spec":{"tags":["tools:v1","tools:v2","other:v1"]}}`)
	for ref, want := range map[string]string{"tools:v2": "Loaded image: docker.io/library/tools:v2\n", "tools": "Loaded image: docker.io/library/tools:v1\nLoaded image: docker.io/library/tools:v2\n"} {
		lighter(t, "save", "-n", from, "-o", path, ref)
		if out := lighter(t, "load", "-n", namespace(t), "-i", path); !strings.HasSuffix(out, want) || strings.Contains(out, "other") {
			t.Errorf("%s loads as\n%s\nwant %s", ref, out, want)
		}
	}
	contains(t, "save of nothing", lighterFails(t, "save", "-n", from, "-o", path+"2", "tools:v9"), "no such image")
	if _, err := os.Stat(path + "2"); err == nil {
		t.Error("a failed save left a file")
	}
}

// TestDockerLoad: archives come through pipes, too, and wrong ones change nothing.
func TestDockerLoad(t *testing.T) {
	ns := namespace(t)
	t.Parallel()
	toolbox(t, ns)
	k := newPerson(t)
	archive := k.try(t, "", "save", "-n", ns, "toolbox")
	if archive.code != 0 {
		t.Fatal(archive.err)
	}
	other := namespace(t)
	r := k.try(t, archive.out, "load", "-n", other)
	contains(t, "load", r.out+r.err, "Loaded image: docker.io/library/toolbox:latest")
	for name, content := range map[string]string{"cut off": archive.out[:len(archive.out)/2], "no archive": strings.Repeat("text", 1000)} {
		empty := namespace(t)
		if r := k.try(t, content, "load", "-n", empty); r.code == 0 {
			t.Errorf("%s: loaded\n%s", name, r.out)
		}
		if out := lighter(t, "get", "images", "-n", empty, "-o", "name"); out != "" {
			t.Errorf("%s: objects are left: %s", name, out)
		}
	}
}

// rootfs is a tar archive of a root file system: busybox and a message of the day.
func rootfs(t *testing.T, motd string) string {
	t.Helper()
	busybox, err := os.ReadFile("../../../manifests/guestbook/app/busybox")
	if err != nil {
		t.Fatalf("%v: make guestbook-base makes it", err)
	}
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, file := range []struct {
		header  tar.Header
		content []byte
	}{
		{tar.Header{Name: "bin/", Mode: 0o755, Typeflag: tar.TypeDir}, nil},
		{tar.Header{Name: "bin/busybox", Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(busybox))}, busybox},
		{tar.Header{Name: "bin/sh", Linkname: "busybox", Typeflag: tar.TypeSymlink}, nil},
		{tar.Header{Name: "etc/motd", Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(motd))}, []byte(motd)},
	} {
		if err := w.WriteHeader(&file.header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(file.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.String()
}

// box makes the image "box:v1" in a namespace, which no other test has the like
// of. It sleeps.
func box(t *testing.T, ns string) {
	t.Helper()
	r := newPerson(t).try(t, rootfs(t, ns), "import", "-n", ns, "-q", "-c", `CMD ["busybox", "sleep", "1d"]`, "-", "box:v1")
	if r.code != 0 {
		t.Fatalf("import: exit code %d\n%s", r.code, r.err)
	}
}

// TestTagAtOnce: a name that was just given to what was just made is good at once,
// before the host has reported its new image.
func TestTagAtOnce(t *testing.T) {
	t.Parallel()
	ns, k := namespace(t), ours(t)
	for i := range 5 {
		name := fmt.Sprintf("made-%d:v1", i)
		if r := k.try(t, archiveOf(t, map[string]string{"file": fmt.Sprint(ns, i)}), "import", "-n", ns, "-", name); r.code != 0 {
			t.Fatalf("import: %+v", r)
		}
		k.run(t, "tag", "-n", ns, name, "registry.example/"+name)
		k.run(t, "save", "-n", ns, "-o", filepath.Join(t.TempDir(), "image.tar"), "registry.example/"+name)
	}
}

func TestDockerImport(t *testing.T) {
	ns := namespace(t)
	t.Parallel()
	k := newPerson(t)
	r := k.try(t, rootfs(t, "hello\n"), "import", "-n", ns, "-m", "for tests", "-c", `CMD ["busybox", "cat", "/etc/motd"]`, "-", "base:v1")
	if r.code != 0 || !strings.HasPrefix(r.out, "sha256:") {
		t.Fatalf("import: exit code %d\n%s%s", r.code, r.out, r.err)
	}
	create(t, ns, "apiVersion: v1\nkind: Pod\nmetadata: {name: imported}\nspec: {restartPolicy: Never, containers: [{name: c, image: \"base:v1\"}]}\n")
	if phase, out := untilDone(t, ns, "imported"); phase != corev1.PodSucceeded || strings.TrimSpace(out) != "hello" {
		t.Errorf("the pod is %s and prints %q", phase, out)
	}
	contains(t, "history", lighter(t, "history", "-n", ns, "base:v1"), "lighter import", "for tests")
	wrong := k.try(t, rootfs(t, "hello\n"), "import", "-n", ns, "-c", "RUN true", "-", "wrong:v1")
	if wrong.code == 0 {
		t.Error("RUN was taken as a change of the configuration")
	}
	contains(t, "import -c", wrong.err, "RUN true", "more than a configuration")
	bad := k.try(t, strings.Repeat("text", 1000), "import", "-n", ns, "-", "bad:v1")
	if bad.code == 0 {
		t.Error("text became an image")
	}
	if out := lighter(t, "get", "images", "-n", ns, "-o", "name"); out != "image.lighter.dev/base-v1\n" {
		t.Errorf("objects: %s", out)
	}
}

// TestDockerCommit: what a container that failed has left runs with another
// command, to find out why.
func TestDockerCommit(t *testing.T) {
	ns := namespace(t)
	t.Parallel()
	toolbox(t, ns)
	create(t, ns, `apiVersion: v1
kind: Pod
metadata: {name: broken}
spec:
  restartPolicy: Never
  containers: [{name: main, image: toolbox, command: [sh, -c, "echo evidence > /tmp/left; rm /bin/fetch; exit 3"]}]
`)
	if phase, log := untilDone(t, ns, "broken"); phase != corev1.PodFailed {
		t.Fatalf("%s: %s", phase, log)
	}
	out := lighter(t, "commit", "-n", ns, "-a", "Ann", "-m", "why it broke", "-c", "ENV FOUND=yes", "broken/main", "evidence:v1")
	contains(t, "commit", out, "sha256:")
	if out := runsAs(t, ns, "look", "evidence:v1", "cat /tmp/left; echo $FOUND; ls /bin/fetch 2>&1 | tail -c 26"); !strings.HasPrefix(out, "evidence\nyes\n") || !strings.Contains(out, "No such file") {
		t.Errorf("the pod prints %q", out)
	}
	contains(t, "inspect", lighter(t, "inspect", "-n", ns, "-f", "{{.Author}}: {{.Comment}}", "evidence:v1"), "Ann: why it broke")
	contains(t, "commit of nothing", lighterFails(t, "commit", "-n", ns, "nobody", "x"), `"nobody" not found`)
	contains(t, "commit of no container", lighterFails(t, "commit", "-n", ns, "broken/side", "x"), "no container side", "main")
}

func TestDockerHistory(t *testing.T) {
	ns := namespace(t)
	t.Parallel()
	toolbox(t, ns)
	out := lighter(t, "history", "-n", ns, "toolbox")
	contains(t, "history", out, "IMAGE", "CREATED BY", "SIZE", "COMMENT", "CMD", "ENV FROM_IMAGE=yes", "0B", "MB", "<missing>", "…")
	contains(t, "history --no-trunc", lighter(t, "history", "-n", ns, "--no-trunc", "toolbox"), "chmod 1777 /tmp", digestOfTag(t, ns, "toolbox"))
}

func TestDockerInspect(t *testing.T) {
	ns := namespace(t)
	t.Parallel()
	toolbox(t, ns)
	var images []struct {
		ID       string `json:"Id"`
		RepoTags []string
		Config   struct{ Cmd, Env []string }
		RootFS   struct{ Layers []string }
	}
	if err := json.Unmarshal([]byte(lighter(t, "inspect", "-n", ns, "toolbox")), &images); err != nil {
		t.Fatal(err)
	}
	if len(images) != 1 || images[0].ID != digestOfTag(t, ns, "toolbox") || strings.Join(images[0].Config.Cmd, " ") != "sleep 1d" || len(images[0].RootFS.Layers) < 4 || images[0].RepoTags[0] != "toolbox:latest" {
		t.Errorf("%+v", images)
	}
	create(t, ns, "apiVersion: v1\nkind: Pod\nmetadata: {name: toolbox}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: toolbox}]}\n")
	pod := until(t, ns, "toolbox", 30*time.Second, "has an address", func(pod *corev1.Pod) bool { return isReady(pod) && pod.Status.PodIP != "" })
	out := lighter(t, "inspect", "-n", ns, "-f", "{{.State.Status}} {{.NetworkSettings.IPAddress}}", "toolbox")
	if want := "running " + pod.Status.PodIP + "\n"; out != want {
		t.Errorf("the container has the name first: %q, want %q", out, want)
	}
	if out := lighter(t, "inspect", "-n", ns, "--type", "image", "-f", "{{.ID}}", "toolbox"); !strings.HasPrefix(out, "sha256:") {
		t.Errorf("inspect --type image: %s", out)
	}
	contains(t, "inspect of nothing", lighterFails(t, "inspect", "-n", ns, "nobody"), "[]", "no such image: nobody")
}

// TestDockerSockets: a host answers by itself, on its socket.
func TestDockerSockets(t *testing.T) {
	ns := namespace(t)
	t.Parallel()
	box(t, ns)
	host := strings.Trim(strings.TrimSpace(lighter(t, "images", "-n", ns, "--format", "{{.Hosts}}", "box")), "[]")
	host, _, _ = strings.Cut(host, " ")
	on := func(args ...string) string {
		return hostExec(t, host, append(append([]string{shared.binary}, args...), "--host", "unix:///run/lighter/agent.sock")...)
	}
	contains(t, "images", on("images", "-n", ns), "box", "v1", "this host")
	contains(t, "inspect", on("inspect", "-n", ns, "--type", "image", "-f", "{{.Config.Cmd}}", "box:v1"), "[busybox sleep 1d]")
	contains(t, "system df", on("system", "df"), "Images", "Containers")
}

func TestDockerSystemDf(t *testing.T) {
	needCluster(t)
	t.Parallel()
	contains(t, "system df", lighter(t, "system", "df"), "TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE", "Images", "Containers", "Build Cache")
	contains(t, "system df -v", lighter(t, "system", "df", "-v"), "host-1", "host-2", "host-3", " free")
}

// TestDockerSystemPrune runs alone, as it removes what others may have pulled.
func TestDockerSystemPrune(t *testing.T) {
	host := needRegistry(t)
	ns := namespace(t)
	other := namespace(t)
	box(t, ns)
	box(t, other)
	ann := newPerson(t)
	if r := ann.login(t, registryPassword); r.code != 0 {
		t.Fatal(r.err)
	}
	name := host + "/" + ns + "/pruned:v1"
	ann.run(t, "tag", "-n", ns, "box:v1", name)
	ann.run(t, "push", "-n", ns, name)
	ann.run(t, "rmi", "-n", ns, name, "box:v1")
	ann.run(t, "pull", "-n", ns, "-q", name)
	ann.fails(t, []string{"system", "prune", "-a"}, "no terminal to ask on")
	contains(t, "prune of what is old", ann.run(t, "system", "prune", "-af", "--until", "24h"), "Total reclaimed space: ")
	if out := ann.run(t, "images", "-n", ns, "-q", name); out == "" {
		t.Error("--until did not spare the image")
	}
	eventually(t, 30*time.Second, "nothing needs the image, so that it goes", func() error {
		ann.run(t, "system", "prune", "-af")
		if out := ann.run(t, "images", "-n", ns, "-q", name); out != "" {
			return errors.New("it is still there")
		}
		return nil
	})
	contains(t, "what an Image object declares", ann.run(t, "images", "-n", other, "--format", "{{.Hosts}}", "box"), "[host-")
}
