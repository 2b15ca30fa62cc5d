package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"lighter.dev/lighter/api/v1alpha1"
)

// TestGuestbook is the README's first command, step by step, and what a user
// does next.
func TestGuestbook(t *testing.T) {
	t.Parallel()
	g := newGuestbook(t, 30080)
	out := lighter(t, g.args()...)
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
	t.Run("spread over the hosts", func(t *testing.T) { testSpread(t, g.ns) })
	t.Run("store across hosts", func(t *testing.T) { testStore(t, g) })
	t.Run("apply again changes nothing", func(t *testing.T) { testUnchanged(t, g) })
	t.Run("scale", func(t *testing.T) { testScale(t, g.ns) })
	t.Run("failing build keeps the old version", func(t *testing.T) { testFailingBuild(t, g) })
	t.Run("changed source rolls out", func(t *testing.T) { testChangedSource(t, g) })
	t.Run("undo brings the old build back", func(t *testing.T) { testUndo(t, g) })
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
func testStore(t *testing.T, g guestbook) {
	entry := "signed at " + time.Now().Format(time.RFC3339Nano)
	g.sign(t, entry)
	servedBy := regexp.MustCompile(`served by (\S+) on (\S+)`)
	seen := map[string]bool{}
	want := len(readyPods(t, g.ns, "app=frontend"))
	eventually(t, 30*time.Second, "every front end has answered", func() error {
		for _, ip := range nodeIPs(t) {
			page, err := get(fmt.Sprintf("http://%s:%d/", ip, g.port))
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

func testUnchanged(t *testing.T, g guestbook) {
	before := lives(t, g.ns, "")
	if len(before) != 4 {
		t.Fatalf("%d containers run, want 4: %v", len(before), before)
	}
	out := lighter(t, g.args()...)
	if strings.Contains(out, "configured") || strings.Contains(out, "created") {
		t.Errorf("a second apply changes something:\n%s", out)
	}
	same(t, before, lives(t, g.ns, ""))
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

// testFailingBuild: the terminal, the object and an Event say what went wrong,
// and the old version is not touched.
func testFailingBuild(t *testing.T, g guestbook) {
	before := lives(t, g.ns, "")
	const good = "COPY frontend /www\n"
	const bad = good + "RUN echo this goes wrong >&2; exit 7\n"
	g.edit(t, "app/Dockerfile", good, bad)
	out := lighterFails(t, g.args()...)
	contains(t, "the terminal", out, "RUN echo this goes wrong", "this goes wrong", "exit code: 7", "Dockerfile")

	image := getImage(t, g.ns, "guestbook-frontend")
	failed := ""
	for _, condition := range image.Status.Conditions {
		if condition.Status == metav1.ConditionFalse {
			failed += condition.Reason + ": " + condition.Message + "\n"
		}
	}
	contains(t, "conditions of the Image", failed, "this goes wrong", "exit code: 7")
	if image.Status.Digest == "" {
		t.Error("the failed build has taken the last good digest away")
	}
	eventually(t, 20*time.Second, "an Event tells of the failure", func() error {
		if text := eventsOf(t, g.ns, "Image", image.Name); !strings.Contains(text, "Warning") || !strings.Contains(text, "this goes wrong") {
			return fmt.Errorf("there are:\n%s", text)
		}
		return nil
	})
	// The scaling before has ended a moment ago.
	eventually(t, 20*time.Second, "the old version serves", func() error { return g.onEveryHost(t, "served by") })
	same(t, before, lives(t, g.ns, ""))
	g.edit(t, "app/Dockerfile", bad, good)
}

func getImage(t *testing.T, ns, name string) *v1alpha1.Image {
	t.Helper()
	found, err := dynamicClient(t).Resource(v1alpha1.SchemeGroupVersion.WithResource("images")).Namespace(ns).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	image := &v1alpha1.Image{}
	if err := fromUnstructured(found, image); err != nil {
		t.Fatal(err)
	}
	return image
}

func fromUnstructured(from *unstructured.Unstructured, to any) error {
	return runtime.DefaultUnstructuredConverter.FromUnstructured(from.Object, to)
}

// testChangedSource: a new build has a new digest and rolls out, and no visitor
// sees a failure meanwhile.
func testChangedSource(t *testing.T, g guestbook) {
	old := getImage(t, g.ns, "guestbook-frontend").Status.Digest
	stop := g.visitors(t, "/", nodeIPs(t)...)
	g.edit(t, pageScript, "served by", "brought to you by")
	lighter(t, g.args()...)
	// apply has waited for the rollout; the hosts hear of the last old pod's end a
	// moment after it did.
	eventually(t, 20*time.Second, "the new page on every host", func() error { return g.onEveryHost(t, "brought to you by") })
	fourPods(t, g.ns)
	visits, failures := stop()
	t.Logf("%d visits during the rollout", visits)
	if len(failures) > 0 || visits < 20 {
		t.Errorf("%d of %d visits during the rollout fail:\n%s", len(failures), visits, strings.Join(failures, "\n"))
	}
	if now := getImage(t, g.ns, "guestbook-frontend").Status.Digest; now == old {
		t.Errorf("the digest is still %s", old)
	}
}

// fourPods waits until no pod of an old version is left.
func fourPods(t *testing.T, ns string) {
	t.Helper()
	eventually(t, 40*time.Second, "nothing is left over", func() error {
		pods, err := client(t).CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
		if err == nil && len(pods.Items) != 4 {
			err = fmt.Errorf("%d pods, want 4", len(pods.Items))
		}
		return err
	})
}

// testUndo: the history knows the digests that were.
func testUndo(t *testing.T, g guestbook) {
	lighter(t, "rollout", "undo", "-n", g.ns, "deployment/frontend")
	lighter(t, "rollout", "status", "-n", g.ns, "deployment/frontend", "--timeout=180s")
	eventually(t, 20*time.Second, "the old page", func() error { return g.onEveryHost(t, "served by") })
}
