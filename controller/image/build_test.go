package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/retry"

	lighterfake "lighter.dev/lighter/api/client/clientset/fake"
	typed "lighter.dev/lighter/api/client/clientset/typed/api/v1alpha1"
	lighterinformers "lighter.dev/lighter/api/client/informers"
	"lighter.dev/lighter/api/v1alpha1"
	"lighter.dev/lighter/controller/reconcile/reconciletest"
)

func inline(conditions ...metav1.Condition) *v1alpha1.Image {
	image := anImage(conditions...)
	image.Spec.Source = v1alpha1.ImageSource{Inline: "FROM busybox"}
	return image
}

func fromConfigMap(hash string, conditions ...metav1.Condition) *v1alpha1.Image {
	image := anImage(conditions...)
	image.Spec.Source = v1alpha1.ImageSource{ConfigMap: &v1alpha1.ConfigMapSource{Name: "files"}}
	image.Spec.Dockerfile, image.Status.ContextHash = "Dockerfile", hash
	return image
}

// fromGit is polled more often than an API server would let it.
func fromGit(commit string, conditions ...metav1.Condition) *v1alpha1.Image {
	image := anImage(conditions...)
	image.Spec.Source = v1alpha1.ImageSource{Git: &v1alpha1.GitSource{URL: "https://example.test/shop.git", PollInterval: &metav1.Duration{Duration: 20 * time.Millisecond}}}
	image.Status.ContextHash = commit
	return image
}

func built(reason string, generation int64) metav1.Condition {
	status := metav1.ConditionFalse
	switch reason {
	case v1alpha1.ReasonBuildSucceeded:
		status = metav1.ConditionTrue
	case v1alpha1.ReasonWaitingForBuilder:
		status = metav1.ConditionUnknown
	}
	return metav1.Condition{Type: v1alpha1.ImageBuilt, Status: status, Reason: reason, ObservedGeneration: generation}
}

func TestNeedsBuild(t *testing.T) {
	gone := inline()
	gone.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	changed := built(v1alpha1.ReasonBuildSucceeded, 1)
	good, bad := built(v1alpha1.ReasonBuildSucceeded, 2), built(v1alpha1.ReasonBuildFailed, 2)
	cut := metav1.Condition{Type: v1alpha1.ImageBuilding, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonBuildCancelled}
	for _, test := range []struct {
		name  string
		image *v1alpha1.Image
		want  bool
	}{
		{"a folder", anImage(), false},
		{"never built", inline(), true},
		{"could not be built yet", inline(built(v1alpha1.ReasonWaitingForBuilder, 2)), true},
		{"being deleted", gone, false},
		{"being built", inline(building("a")), false},
		{"being built after a change", inline(changed, building("a")), false},
		{"built", inline(good), false},
		{"changed since", inline(changed), true},
		{"failed", inline(bad), false},
		{"failed, changed since", inline(built(v1alpha1.ReasonBuildFailed, 1)), true},
		{"cut off", inline(built(v1alpha1.ReasonBuildCancelled, 2)), true},
		{"without a base", inline(built(v1alpha1.ReasonBaseUnavailable, 2)), true},
		{"cut off, and nobody said so", inline(changed, cut), true},
		{"from this ConfigMap", fromConfigMap("now", good), false},
		{"from an older ConfigMap", fromConfigMap("then", good), true},
		{"failed from this ConfigMap", fromConfigMap("now", bad), false},
		{"failed from an older ConfigMap", fromConfigMap("then", bad), true},
		{"from this commit", fromGit("now", good), false},
		{"from an older commit", fromGit("then", good), true},
		{"failed from this commit", fromGit("now", bad), false},
		{"from a commit, not polled any more", func() *v1alpha1.Image { i := fromGit("then", good); i.Spec.Source.Git.PollInterval = nil; return i }(), false},
		{"from a ConfigMap, then inline", func() *v1alpha1.Image { i := inline(good); i.Status.ContextHash = "then"; return i }(), false},
	} {
		if got := needsBuild(test.image, "now"); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestContextFrom(t *testing.T) {
	if got := contextFrom(nil, "files", "Dockerfile"); !strings.Contains(got.missing, `no ConfigMap "files"`) {
		t.Errorf("%+v", got)
	}
	from := func(text map[string]string, binary map[string][]byte) buildContext {
		return contextFrom(&corev1.ConfigMap{Data: text, BinaryData: binary}, "files", "Dockerfile")
	}
	if got := from(map[string]string{"x": "1"}, nil); !strings.Contains(got.missing, `no key "Dockerfile"`) {
		t.Errorf("%+v", got)
	}
	both := from(map[string]string{"Dockerfile": "FROM x"}, map[string][]byte{"logo.png": {0, 1}})
	if both.missing != "" || string(both.files["Dockerfile"]) != "FROM x" || len(both.files["logo.png"]) != 2 {
		t.Errorf("%+v", both)
	}
	other := from(map[string]string{"Dockerfile": "FROM x"}, map[string][]byte{"logo.png": {0, 2}})
	if both.hash == other.hash || both.hash != from(map[string]string{"Dockerfile": "FROM x", "logo.png": "\x00\x01"}, nil).hash {
		t.Error("the hash is not that of the files")
	}
}

func TestTaggedStatus(t *testing.T) {
	const digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	image := anImage(built(v1alpha1.ReasonBuildSucceeded, 1), building("a"))
	image.Spec.Source = v1alpha1.ImageSource{Image: &v1alpha1.TagSource{Ref: "nginx:1.29@" + digest}}
	image.Status.Digest, image.Status.NodeName, image.Status.Size = "sha256:1", "a", 5
	status, err := taggedStatus(image, metav1.Now())
	if err != nil {
		t.Fatal(err)
	}
	if status.Digest != digest || status.NodeName != "" || status.Size != 0 || status.ObservedGeneration != 2 || len(status.Conditions) != 1 {
		t.Errorf("%+v", status)
	}
	if c := status.Conditions[0]; c.Type != v1alpha1.ImageBuilt || c.Status != metav1.ConditionTrue || c.Reason != v1alpha1.ReasonTagged || c.ObservedGeneration != 2 {
		t.Errorf("%+v", c)
	}
	image.Status = *status
	if status, err := taggedStatus(image, metav1.Now()); status != nil || err != nil {
		t.Errorf("a second time: %+v, %v", status, err)
	}
	image.Generation++
	if status, _ := taggedStatus(image, metav1.Now()); status == nil {
		t.Error("after a change: nothing")
	}
}

func TestFirstSeen(t *testing.T) {
	now := time.Unix(0, 0)
	seen := newFirstSeen(func() time.Time { return now })
	check := func(generation int64, want time.Duration) {
		t.Helper()
		if got := seen.since("a", generation); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	check(1, 0)
	now = now.Add(time.Second)
	check(1, time.Second)
	check(2, 0)
	seen.forget("a")
	now = now.Add(time.Second)
	check(2, 0)
}

// cluster runs a controller on fake APIs. Its Build is an agent's work: it writes
// the Image's status, as fail says.
type cluster struct {
	*testing.T
	core    *fake.Clientset
	lighter *lighterfake.Clientset
	events  *record.FakeRecorder

	mu    sync.Mutex
	asked []map[string][]byte
	// err is why no build can be begun, reason how those end that are.
	err    error
	reason string
	// commit is what repositories answer, askErr that they do not.
	commit string
	askErr error
}

func (c *cluster) ask(context.Context, *v1alpha1.GitSource) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.commit, c.askErr
}

// set changes what happens next.
func (c *cluster) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func newCluster(t *testing.T, image *v1alpha1.Image) *cluster {
	c := &cluster{T: t, core: fake.NewClientset(node("a")), lighter: lighterfake.NewSimpleClientset(image), events: record.NewFakeRecorder(100), reason: v1alpha1.ReasonBuildSucceeded}
	versioned(c.lighter)
	core, own := informers.NewSharedInformerFactory(c.core, 0), lighterinformers.NewSharedInformerFactory(c.lighter, 0)
	controller, err := New(Config{
		Client: c.lighter, Core: c.core, Build: c.build, Commit: c.ask,
		Informers: core, LighterInformers: own, Recorder: c.events, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	reconciletest.Start(t, []reconciletest.API{c.core, c.lighter}, []reconciletest.Informers{core, own}, controller.Run)
	return c
}

func (c *cluster) build(ctx context.Context, image *v1alpha1.Image, files map[string][]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.asked = append(c.asked, files)
	return c.change(ctx, image.Name, func(images typed.ImageInterface, is *v1alpha1.Image) error {
		meta.SetStatusCondition(&is.Status.Conditions, built(c.reason, image.Generation))
		_, err := images.UpdateStatus(ctx, is, metav1.UpdateOptions{})
		return err
	})
}

// change writes an Image beside the controller.
func (c *cluster) change(ctx context.Context, name string, write func(typed.ImageInterface, *v1alpha1.Image) error) error {
	images := c.lighter.LighterV1alpha1().Images("shop")
	return retry.RetryOnConflict(wait.Backoff{Steps: 1000, Duration: time.Millisecond}, func() error {
		is, err := images.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return write(images, is)
	})
}

// versioned has the fake refuse what is made from an old version of an Image.
func versioned(client *lighterfake.Clientset) {
	reconciletest.Versioned(client, v1alpha1.SchemeGroupVersion.WithResource("images"), func(to, from *v1alpha1.Image) { to.Status = from.Status }, nil)
}

func (c *cluster) builds() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

// eventually waits for an Image of which look finds no fault.
func (c *cluster) eventually(look func(*v1alpha1.Image) error) *v1alpha1.Image {
	c.Helper()
	var last error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		image, err := c.lighter.LighterV1alpha1().Images("shop").Get(c.Context(), "web", metav1.GetOptions{})
		if err != nil {
			c.Fatal(err)
		}
		if last = look(image); last == nil {
			return image
		}
	}
	c.Fatal(last)
	return nil
}

func conditionOf(image *v1alpha1.Image) metav1.Condition {
	if c := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ImageBuilt); c != nil {
		return *c
	}
	return metav1.Condition{}
}

func has(reason, message string) func(*v1alpha1.Image) error {
	return func(image *v1alpha1.Image) error {
		if c := conditionOf(image); c.Reason != reason || !strings.Contains(c.Message, message) {
			return fmt.Errorf("Built is %+v, want %s %q", c, reason, message)
		}
		return nil
	}
}

// TestBuildsByItself: an inline Image is built, again after it was not possible,
// and not again once it has failed.
func TestBuildsByItself(t *testing.T) {
	t.Parallel()
	c := newCluster(t, inline())
	c.mu.Lock()
	c.err, c.reason = errors.New("no node can build image shop/web"), v1alpha1.ReasonBuildFailed
	c.mu.Unlock()
	c.eventually(has(v1alpha1.ReasonWaitingForBuilder, "no node can build image shop/web"))
	c.set(func() { c.err = nil })
	c.eventually(has(v1alpha1.ReasonBuildFailed, ""))
	if event := <-c.events.Events; !strings.Contains(event, "WaitingForBuilder") || !strings.Contains(event, "no node can build") {
		t.Errorf("event %q", event)
	}
	c.mu.Lock()
	c.reason = v1alpha1.ReasonBuildSucceeded
	c.mu.Unlock()
	err := c.change(t.Context(), "web", func(images typed.ImageInterface, is *v1alpha1.Image) error {
		is.Generation++
		is.Spec.Source.Inline = "FROM other"
		_, err := images.Update(t.Context(), is, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.eventually(has(v1alpha1.ReasonBuildSucceeded, ""))
	if n := c.builds(); n != 2 {
		t.Errorf("%d builds, want one that failed and one that succeeded", n)
	}
}

// TestWaitsForItsBase: a build that had no base is tried again.
func TestWaitsForItsBase(t *testing.T) {
	t.Parallel()
	image := inline()
	began := time.Now()
	c := newCluster(t, image)
	c.mu.Lock()
	c.reason = v1alpha1.ReasonBaseUnavailable
	c.mu.Unlock()
	c.eventually(has(v1alpha1.ReasonBaseUnavailable, ""))
	c.mu.Lock()
	c.reason = v1alpha1.ReasonBuildSucceeded
	c.mu.Unlock()
	c.eventually(has(v1alpha1.ReasonBuildSucceeded, ""))
	if n, most := c.builds(), 2+int(time.Since(began)/firstRetry); n < 2 || n > most {
		t.Errorf("%d builds, want 2 to %d", n, most)
	}
}

// TestFollowsConfigMap: an Image waits for its ConfigMap, and is built anew when
// that changes, from what it is then.
func TestFollowsConfigMap(t *testing.T) {
	t.Parallel()
	c := newCluster(t, fromConfigMap(""))
	c.eventually(has(v1alpha1.ReasonWaitingForContext, `no ConfigMap "files"`))
	configMaps := c.core.CoreV1().ConfigMaps("shop")
	files := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "files", Namespace: "shop"}, Data: map[string]string{"a.txt": "1"}}
	if _, err := configMaps.Create(t.Context(), files, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.eventually(has(v1alpha1.ReasonWaitingForContext, `no key "Dockerfile"`))
	for _, text := range []string{"1", "2"} {
		files.Data = map[string]string{"Dockerfile": "FROM x", "a.txt": text}
		if _, err := configMaps.Update(t.Context(), files, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		want := map[string][]byte{"Dockerfile": []byte("FROM x"), "a.txt": []byte(text)}
		c.eventually(func(image *v1alpha1.Image) error {
			if _, hash := v1alpha1.ContextOf(files); image.Status.ContextHash != hash {
				return fmt.Errorf("built from %s", image.Status.ContextHash)
			}
			return has(v1alpha1.ReasonBuildSucceeded, "")(image)
		})
		c.mu.Lock()
		got := c.asked[len(c.asked)-1]
		c.mu.Unlock()
		if !maps.EqualFunc(got, want, func(a, b []byte) bool { return string(a) == string(b) }) {
			t.Errorf("built from %q, want %q", got, want)
		}
	}
	if n := c.builds(); n != 2 {
		t.Errorf("%d builds, want 2", n)
	}
}

// TestFollowsCommits: an Image is built anew when its repository has another commit,
// once for each, also if that fails.
func TestFollowsCommits(t *testing.T) {
	t.Parallel()
	c := newCluster(t, fromGit(""))
	c.set(func() { c.commit = "one" })
	from := func(commit, reason string) {
		t.Helper()
		c.eventually(func(image *v1alpha1.Image) error {
			if image.Status.ContextHash != commit {
				return fmt.Errorf("built from %q, want %q", image.Status.ContextHash, commit)
			}
			return has(reason, "")(image)
		})
	}
	from("one", v1alpha1.ReasonBuildSucceeded)
	c.set(func() { c.commit, c.reason = "two", v1alpha1.ReasonBuildFailed })
	from("two", v1alpha1.ReasonBuildFailed)
	c.set(func() { c.commit, c.reason = "three", v1alpha1.ReasonBuildSucceeded })
	from("three", v1alpha1.ReasonBuildSucceeded)
	if n := c.builds(); n != 3 {
		t.Errorf("%d builds of three commits", n)
	}
	c.set(func() { c.askErr = errors.New("repository not found") })
	for event := range c.events.Events {
		if strings.Contains(event, "PollFailed") && strings.Contains(event, "repository not found") && strings.Contains(event, "in 1m0s") {
			break
		}
	}
	from("three", v1alpha1.ReasonBuildSucceeded)
}

// TestCommitOf: as git itself takes a name that several refs have.
func TestCommitOf(t *testing.T) {
	for _, test := range []struct{ name, output, ref, want string }{
		{"the default branch", "a\tHEAD\n", "HEAD", "a"},
		{"a branch", "a\trefs/heads/main\nb\trefs/heads/x/main\n", "main", "a"},
		{"a branch with a slash", "b\trefs/heads/x/main\n", "x/main", "b"},
		{"a branch of another's name", "b\trefs/heads/x/main\n", "main", ""},
		{"a tag", "a\trefs/tags/v1\n", "v1", "a"},
		{"a tag with a message", "a\trefs/tags/v1\nb\trefs/tags/v1^{}\n", "v1", "b"},
		{"a branch and a tag", "a\trefs/heads/v1\nb\trefs/tags/v1\n", "v1", "a"},
		{"a full name", "a\trefs/pull/7/head\n", "refs/pull/7/head", "a"},
		{"nothing", "", "main", ""},
	} {
		if got := commitOf(test.output, test.ref); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// TestTags: no agent is needed.
func TestTags(t *testing.T) {
	t.Parallel()
	image := anImage()
	const digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	image.Spec.Source = v1alpha1.ImageSource{Image: &v1alpha1.TagSource{Ref: "nginx@" + digest}}
	c := newCluster(t, image)
	got := c.eventually(has(v1alpha1.ReasonTagged, "nginx@"+digest))
	if got.Status.Digest != digest || c.builds() != 0 {
		t.Errorf("%+v after %d builds", got.Status, c.builds())
	}
}
