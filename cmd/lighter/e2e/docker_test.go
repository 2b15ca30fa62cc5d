package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Rows of Docker's usage that are about no single verb. Those that are have a test
// named after it: TestDockerBuild, TestDockerRun, TestDockerStop… and so on.

// TestDockerBuildFromScratch: a base image that is made of nothing.
func TestDockerBuildFromScratch(t *testing.T) {
	t.Parallel()
	d := dock{t, namespace(t)}
	dir := source(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY --chmod=755 busybox /busybox\nENTRYPOINT [\"/busybox\"]\nCMD [\"echo\", \"out of nothing\"]\n"})
	d.do("build", "-q", "-t", "base", dir)
	d.prints("out of nothing", "run", "--rm", "base")
	if layers := d.do("inspect", "-f", "{{len .RootFS.Layers}}", "base"); layers != "1" {
		t.Errorf("it has %s layers", layers)
	}
	writeFiles(t, dir, map[string]string{"Dockerfile": "FROM base\nRUN [\"/busybox\", \"touch\", \"/more\"]\nCMD [\"find\", \"/busybox\", \"/more\"]\n"})
	d.do("build", "-q", "-t", "more", dir)
	d.prints("/busybox\n/more", "run", "--rm", "more")
}

// TestDockerBuildCache: which steps are built again, by what has changed. All builds
// are on one host, as others have to do each step once.
func TestDockerBuildCache(t *testing.T) {
	t.Parallel()
	d := dock{t, namespace(t)}
	const dockerfile = "FROM scratch\nCOPY --chmod=755 busybox /busybox\nCOPY first /first\nRUN [\"/busybox\", \"cp\", \"/first\", \"/ran\"]\nCOPY second /second\n"
	dir := source(t, map[string]string{"Dockerfile": dockerfile, "first": "1", "second": "2"})
	// Nobody has built this one: what follows a program in its file does not matter.
	busybox, err := os.OpenFile(filepath.Join(dir, "busybox"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprint(busybox, d.ns)
		err = errors.Join(err, busybox.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	const all = "COPY busybox, COPY first, RUN, COPY second"
	for _, step := range []struct {
		what   string
		change map[string]string
		flags  []string
		again  string // the steps that are not from the cache
	}{
		{"for the first time", nil, nil, all},
		{"unchanged", nil, nil, ""},
		{"the last file has changed", map[string]string{"second": "two"}, nil, "COPY second"},
		{"a file before others has changed", map[string]string{"first": "one"}, nil, "COPY first, RUN, COPY second"},
		{"the command has changed", map[string]string{"Dockerfile": strings.Replace(dockerfile, "/ran", "/run", 1)}, nil, "RUN, COPY second"},
		{"back to what was there", map[string]string{"Dockerfile": dockerfile}, nil, ""},
		{"without the cache", nil, []string{"--no-cache"}, all},
	} {
		writeFiles(t, dir, step.change)
		// Only what is in a file counts, not when it was written.
		if err := os.Chtimes(filepath.Join(dir, "first"), time.Time{}, time.Unix(int64(len(step.what)), 0)); err != nil {
			t.Fatal(err)
		}
		r := d.try(slices.Concat([]string{"build", "-t", "cached", "--node", "host-1", "--progress", "plain"}, step.flags, []string{dir})...)
		if r.code != 0 {
			t.Fatalf("%s: %s", step.what, r.err)
		}
		if again := builtSteps(r.err); again != step.again {
			t.Errorf("%s: built again: %q, want %q\n%s", step.what, again, step.again, r.err)
		}
	}
}

var (
	stepLine   = regexp.MustCompile(`(?m)^#(\d+) \[(\d+)/\d+\] (COPY|RUN)(?: --chmod=755)? (\w*)`)
	cachedLine = regexp.MustCompile(`(?m)^#(\d+) CACHED$`)
)

// builtSteps are the steps of a build that were not in the cache, in their order.
func builtSteps(progress string) string {
	steps := map[string]string{} // by their place
	for _, match := range stepLine.FindAllStringSubmatch(progress, -1) {
		if !slices.ContainsFunc(cachedLine.FindAllStringSubmatch(progress, -1), func(cached []string) bool { return cached[1] == match[1] }) {
			steps[match[2]] = strings.TrimSpace(match[3] + " " + match[4])
		}
	}
	var out []string
	for _, place := range slices.Sorted(maps.Keys(steps)) {
		out = append(out, steps[place])
	}
	return strings.Join(out, ", ")
}

// TestDockerStorageDriver: the verbs do the same on a driver that is not the default.
// It is not parallel: it makes a cluster.
func TestDockerStorageDriver(t *testing.T) {
	c := newConfigured(t, 1, "storage-driver: native\n")
	c.buildBox(t.TempDir(), "box", "ENTRYPOINT [\"/bin/busybox\"]\nCMD [\"sleep\", \"1d\"]\n")
	c.lighter("run", "-d", "--name", "one", "box")
	c.lighter("exec", "one", "--", "/bin/busybox", "touch", "/written")
	if out := c.lighter("diff", "one"); out != "A /written\n" {
		t.Errorf("diff: %q", out)
	}
	c.lighter("stop", "-t", "0", "one")
	c.lighter("start", "one")
	c.lighter("commit", "-q", "one", "kept")
	if out := c.lighter("run", "--rm", "kept", "ls", "/written"); !strings.Contains(out, "/written\n") {
		t.Errorf("of the committed image: %q", out)
	}
	for driver, there := range map[string]bool{"native": true, "overlayfs": false} {
		_, err := c.try("local", "--name", c.name, "exec", "host-1", "--", "test", "-d", fmt.Sprintf("/var/lib/lighter/agent/images/snapshots-%s", driver))
		if (err == nil) != there {
			t.Errorf("are there snapshots of %s? %v", driver, err)
		}
	}
}
