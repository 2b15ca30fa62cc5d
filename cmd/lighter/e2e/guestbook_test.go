package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestGuestbook is the README's first command, step by step, and what a user
// does next.
func TestGuestbook(t *testing.T) {
	ns := namespace(t)
	dir := filepath.Join(t.TempDir(), "guestbook")
	if err := os.CopyFS(dir, os.DirFS("../../../manifests/guestbook")); err != nil {
		t.Fatal(err)
	}
	apply := []string{"apply", "-n", ns, "-f", dir, "--timeout", "2m"}

	out := lighter(t, apply...)
	address := regexp.MustCompile(`http://[0-9.]+:30080`).FindString(out)
	if address == "" {
		t.Fatalf("apply prints no address:\n%s", out)
	}
	page, err := get(address)
	if err != nil {
		t.Fatalf("the address that apply prints does not answer at once: %v", err)
	}
	if !strings.Contains(page, "<h1>Guestbook</h1>") {
		t.Errorf("not the guestbook:\n%s", page)
	}
	t.Run("spread over the hosts", func(t *testing.T) { testSpread(t, ns) })
	t.Run("store across hosts", func(t *testing.T) { testStore(t, ns, address) })
	t.Run("apply again changes nothing", func(t *testing.T) { testUnchanged(t, ns, apply) })
	t.Run("scale", func(t *testing.T) { testScale(t, ns) })
	t.Run("failing build keeps the old version", func(t *testing.T) { testFailingBuild(t, ns, dir, address, apply) })
	t.Run("changed source rolls out", func(t *testing.T) { testChangedSource(t, dir, address, apply) })
}

func testSpread(t *testing.T, ns string) {
	on := map[string]bool{}
	for _, pod := range readyPods(t, ns, "app=frontend") {
		on[pod.Spec.NodeName] = true
	}
	if len(on) != hosts {
		t.Errorf("the front end runs on %d hosts, want %d: %v", len(on), hosts, on)
	}
}

// testStore writes through one host and reads through all, until every front
// end, two of which are on other hosts than the store, has shown the entry.
func testStore(t *testing.T, ns, address string) {
	entry := "signed at " + time.Now().Format(time.RFC3339Nano)
	response, err := http.PostForm(address+"/cgi-bin/index.cgi", url.Values{"entry": {entry}})
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	servedBy := regexp.MustCompile(`served by (\S+) on (\S+)`)
	seen := map[string]bool{}
	want := len(readyPods(t, ns, "app=frontend"))
	eventually(t, 30*time.Second, "every front end has answered", func() error {
		for _, ip := range nodeIPs(t) {
			page, err := get(fmt.Sprintf("http://%s:30080/", ip))
			if err != nil {
				return err
			}
			match := servedBy.FindStringSubmatch(page)
			if match == nil || !strings.Contains(page, entry) {
				return fmt.Errorf("through %s: the entry %q is not in\n%s", ip, entry, page)
			}
			seen[match[1]] = true
		}
		if len(seen) < want {
			return fmt.Errorf("%d of %d front ends have answered", len(seen), want)
		}
		return nil
	})
}

func testUnchanged(t *testing.T, ns string, apply []string) {
	before := names(t, ns)
	out := lighter(t, apply...)
	if strings.Contains(out, "configured") || strings.Contains(out, "created") {
		t.Errorf("a second apply changes something:\n%s", out)
	}
	if after := names(t, ns); before != after {
		t.Errorf("a second apply replaced pods: %s, now %s", before, after)
	}
}

func names(t *testing.T, ns string) string {
	t.Helper()
	var all []string
	for _, pod := range readyPods(t, ns, "") {
		restarts := int32(0)
		for _, status := range pod.Status.ContainerStatuses {
			restarts += status.RestartCount
		}
		all = append(all, fmt.Sprintf("%s(%d restarts)", pod.Name, restarts))
	}
	return strings.Join(all, " ")
}

func testScale(t *testing.T, ns string) {
	for _, replicas := range []int{5, 3} {
		lighter(t, "scale", "-n", ns, "deployment/frontend", fmt.Sprintf("--replicas=%d", replicas))
		eventually(t, 30*time.Second, fmt.Sprintf("%d front ends", replicas), func() error {
			if n := len(readyPods(t, ns, "app=frontend")); n != replicas {
				return fmt.Errorf("%d are Ready", n)
			}
			return nil
		})
	}
}

func testFailingBuild(t *testing.T, ns, dir, address string, apply []string) {
	dockerfile := filepath.Join(dir, "app", "Dockerfile")
	good, err := os.ReadFile(dockerfile)
	if err != nil {
		t.Fatal(err)
	}
	before := names(t, ns)
	if err := os.WriteFile(dockerfile, append(good, []byte("RUN echo this goes wrong >&2; exit 7\n")...), 0o644); err != nil {
		t.Fatal(err)
	}
	out := lighterFails(t, apply...)
	for _, want := range []string{"this goes wrong", "exit code: 7"} {
		if !strings.Contains(out, want) {
			t.Errorf("the terminal does not show %q:\n%s", want, out)
		}
	}
	if described := lighter(t, "describe", "image", "-n", ns, "guestbook-frontend"); !strings.Contains(described, "this goes wrong") {
		t.Errorf("the object does not show the step's output:\n%s", described)
	}
	if _, err := get(address); err != nil {
		t.Errorf("the old version does not serve: %v", err)
	}
	if after := names(t, ns); before != after {
		t.Errorf("pods changed: %s, now %s", before, after)
	}
	if err := os.WriteFile(dockerfile, good, 0o644); err != nil {
		t.Fatal(err)
	}
}

func testChangedSource(t *testing.T, dir, address string, apply []string) {
	script := filepath.Join(dir, "app", "frontend", "cgi-bin", "index.cgi")
	content, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(content), "served by", "brought to you by", 1)
	if err := os.WriteFile(script, []byte(changed), 0o755); err != nil {
		t.Fatal(err)
	}
	lighter(t, apply...)
	// apply has waited for the rollout: no front end shows the old page.
	for range 10 {
		page, err := get(address)
		if err == nil && !strings.Contains(page, "brought to you by") {
			err = errors.New("an old page:\n" + page)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
