package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// guestbook is a copy of manifests/guestbook that a test may change.
type guestbook struct {
	ns, dir string
	port    int    // its NodePort
	last    string // the host that answers goes to
}

// newGuestbook copies the manifests, with another NodePort and pods that do not
// take 30 s to end. It applies nothing.
func newGuestbook(t *testing.T, port int) guestbook {
	t.Helper()
	g := guestbook{ns: namespace(t), dir: filepath.Join(t.TempDir(), "guestbook"), port: port}
	if err := os.CopyFS(g.dir, os.DirFS("../../../manifests/guestbook")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"frontend.yaml", "store.yaml"} {
		g.edit(t, name, "\n    spec:\n", "\n    spec:\n      terminationGracePeriodSeconds: 2\n")
	}
	g.edit(t, "frontend.yaml", "nodePort: 30080", fmt.Sprint("nodePort: ", port))
	return g
}

// args are lighter's arguments to apply it.
func (g guestbook) args() []string {
	return []string{"apply", "-n", g.ns, "-f", g.dir, "--timeout", "180s"}
}

// edit replaces text in one of its files; the text has to be there.
func (g guestbook) edit(t *testing.T, name, from, to string) {
	t.Helper()
	path := filepath.Join(g.dir, name)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), from) {
		t.Fatalf("%s: no %q in\n%s", name, from, content)
	}
	changed := strings.ReplaceAll(string(content), from, to)
	if err := os.WriteFile(path, []byte(changed), info.Mode()); err != nil {
		t.Fatal(err)
	}
}

const pageScript = "app/frontend/cgi-bin/index.cgi"

// onEveryHost fetches the page through each host and wants text in it.
func (g guestbook) onEveryHost(t *testing.T, text string) error {
	for _, ip := range nodeIPs(t) {
		page, err := get(fmt.Sprintf("http://%s:%d/", ip, g.port))
		if err != nil {
			return err
		}
		if !strings.Contains(page, text) {
			return fmt.Errorf("through %s: no %q in\n%s", ip, text, page)
		}
	}
	return nil
}

// sign leaves an entry that a page only shows if it reaches the store. A page that
// does not reach it takes an entry and forgets it, as it does right after a rollout.
func (g guestbook) sign(t *testing.T, entry string) {
	t.Helper()
	at := fmt.Sprintf("http://%s:%d/", nodeIPs(t)[0], g.port)
	c := http.Client{Timeout: 10 * time.Second}
	eventually(t, 20*time.Second, "the entry is kept", func() error {
		response, err := c.PostForm(at+"cgi-bin/index.cgi", url.Values{"entry": {entry}})
		if err != nil {
			return err
		}
		response.Body.Close()
		page, err := get(at)
		if err == nil && !strings.Contains(page, entry) {
			err = errOutput(page)
		}
		return err
	})
}

// visitors fetch the page through the hosts one after the other, without a
// pause, until stop is called, which reports how it went.
func (g guestbook) visitors(t *testing.T, path string, ips ...string) (stop func() (visits int, failures []string)) {
	t.Helper()
	var mu sync.Mutex
	var failures []string
	visits := 0
	done := make(chan struct{})
	var visiting sync.WaitGroup
	for _, ip := range ips {
		visiting.Go(func() {
			pause := time.NewTicker(25 * time.Millisecond)
			defer pause.Stop()
			c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			for {
				start := time.Now()
				problem := visit(&c, fmt.Sprintf("http://%s:%d%s", ip, g.port, path))
				mu.Lock()
				visits++
				if problem != "" {
					failures = append(failures, fmt.Sprintf("%s (after %s): %s", start.Format("15:04:05.000"), time.Since(start).Round(time.Millisecond), problem))
				}
				mu.Unlock()
				select {
				case <-done:
					return
				case <-pause.C:
				}
			}
		})
	}
	return func() (int, []string) {
		close(done)
		visiting.Wait()
		return visits, failures
	}
}

func visit(c *http.Client, url string) string {
	response, err := c.Get(url)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return url + ": " + response.Status
	}
	return ""
}
