package deployment

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/retry"

	lighterfake "lighter.dev/lighter/api/client/clientset/fake"
	lighterinformers "lighter.dev/lighter/api/client/informers"
	"lighter.dev/lighter/api/v1alpha1"
	"lighter.dev/lighter/controller/reconcile/reconciletest"
)

// cluster is a running reconciler with its fake APIs.
type cluster struct {
	*testing.T
	client  *fake.Clientset
	lighter *lighterfake.Clientset
	events  *record.FakeRecorder
}

func start(t *testing.T, images []runtime.Object, objects ...runtime.Object) cluster {
	c := cluster{t, fake.NewClientset(objects...), lighterfake.NewSimpleClientset(images...), record.NewFakeRecorder(1000)}
	reconciletest.Versioned(c.client, appsv1.SchemeGroupVersion.WithResource("deployments"),
		func(to, from *appsv1.Deployment) { to.Status = from.Status },
		func(to, from *appsv1.Deployment) { to.Annotations = from.Annotations })
	reconciletest.Versioned(c.client, appsv1.SchemeGroupVersion.WithResource("replicasets"),
		func(to, from *appsv1.ReplicaSet) { to.Status = from.Status }, nil)
	c.client.PrependReactor("create", "replicasets", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if create, ok := action.(clienttesting.CreateAction); ok {
			if rs, ok := create.GetObject().(*appsv1.ReplicaSet); ok {
				rs.UID = types.UID(rs.Name)
			}
		}
		return false, nil, nil
	})
	core, own := informers.NewSharedInformerFactory(c.client, 0), lighterinformers.NewSharedInformerFactory(c.lighter, 0)
	reconciler, err := New(Config{Client: c.client, Informers: core, LighterInformers: own, Recorder: c.events, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	reconciletest.Start(t, []reconciletest.API{c.client, c.lighter}, []reconciletest.Informers{core, own}, reconciler.Run)
	return c
}

func (c cluster) eventually(what string, holds func() bool) {
	c.Helper()
	reconciletest.Eventually(c, what, holds)
}

func (c cluster) deployment() *appsv1.Deployment {
	d, err := c.client.AppsV1().Deployments("shop").Get(c.Context(), "web", metav1.GetOptions{})
	if err != nil {
		c.Fatal(err)
	}
	return d
}

// pinnedTo finds the ReplicaSet whose template is pinned to a digest.
func (c cluster) pinnedTo(digest string) *appsv1.ReplicaSet {
	list, err := c.client.AppsV1().ReplicaSets("shop").List(c.Context(), metav1.ListOptions{})
	if err != nil {
		c.Fatal(err)
	}
	for i := range list.Items {
		if parseDigests(list.Items[i].Spec.Template.Annotations[v1alpha1.DigestsAnnotation])[shop] == digest {
			return &list.Items[i]
		}
	}
	return nil
}

func (c cluster) build(digest string) {
	image := anImage()
	image.Status.Digest = digest
	if _, err := c.lighter.LighterV1alpha1().Images("shop").UpdateStatus(c.Context(), image, metav1.UpdateOptions{}); err != nil {
		c.Fatal(err)
	}
}

// patient bounds the tries of a write beside the reconciler's.
var patient = wait.Backoff{Steps: 1000, Duration: time.Millisecond}

// comeUp pretends that the pods of a ReplicaSet are all available.
func (c cluster) comeUp(digest string) {
	err := retry.RetryOnConflict(patient, func() error {
		rs := c.pinnedTo(digest)
		rs.Status = appsv1.ReplicaSetStatus{Replicas: size(rs), ReadyReplicas: size(rs), AvailableReplicas: size(rs)}
		_, err := c.client.AppsV1().ReplicaSets("shop").UpdateStatus(c.Context(), rs, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		c.Fatal(err)
	}
}

func anImage() *v1alpha1.Image {
	image := &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Name: "shop", Namespace: "shop"}}
	image.Spec.Source.Path, image.Spec.Tags = "src", []string{"shop"}
	return image
}

// simple is a Deployment with one container.
func simple(replicas int32, image string) *appsv1.Deployment {
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "d"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, ProgressDeadlineSeconds: new(int32(600)),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
		},
	}
	d.Spec.Template.Labels = map[string]string{"app": "web"}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "web", Image: image}}
	return d
}

func TestDigestsRollOutAndBack(t *testing.T) {
	c := start(t, []runtime.Object{anImage()}, simple(1, "shop:latest"))
	c.eventually("waits for the image", func() bool {
		condition := find(&c.deployment().Status, appsv1.DeploymentProgressing)
		return condition != nil && condition.Reason == reasonWaiting
	})
	if event := <-c.events.Events; !strings.HasPrefix(event, "Warning WaitingForImage image \"shop\" has not been built: run \"lighter apply -f\"") {
		t.Errorf("event %q", event)
	}
	if list, _ := c.client.AppsV1().ReplicaSets("shop").List(t.Context(), metav1.ListOptions{}); len(list.Items) != 0 {
		t.Error("made a ReplicaSet without a pin")
	}

	c.build("one")
	c.eventually("pinned to the first build", func() bool { return c.pinnedTo("one") != nil })
	c.comeUp("one")
	c.eventually("complete", func() bool {
		return find(&c.deployment().Status, appsv1.DeploymentProgressing).Reason == reasonComplete
	})

	c.build("two")
	c.eventually("the old one is scaled down", func() bool { return size(c.pinnedTo("one")) == 0 })
	c.comeUp("one") // its pods are gone
	c.eventually("pinned to the second build", func() bool { return c.pinnedTo("two") != nil && size(c.pinnedTo("two")) == 1 })
	c.comeUp("two")
	c.eventually("digests are recorded", func() bool {
		return parseDigests(c.deployment().Annotations[observedAnnotation])[shop] == "two" && c.deployment().Annotations[revisionAnnotation] == "2"
	})

	// What "kubectl rollout undo" does: the old template, and annotations
	// without our record.
	err := retry.RetryOnConflict(patient, func() error {
		d := c.deployment()
		d.Spec.Template = *withoutHash(&c.pinnedTo("one").Spec.Template)
		d.Annotations = map[string]string{revisionAnnotation: "2"}
		_, err := c.client.AppsV1().Deployments("shop").Update(t.Context(), d, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.eventually("the second one is scaled down", func() bool { return size(c.pinnedTo("two")) == 0 })
	c.comeUp("two")
	c.eventually("rolled back", func() bool { return size(c.pinnedTo("one")) == 1 && revisionOf(c.pinnedTo("one")) == 3 })
	c.comeUp("one")
	c.eventually("still knows the latest build", func() bool { return parseDigests(c.deployment().Annotations[observedAnnotation])[shop] == "two" })

	c.build("three")
	c.eventually("the pin of the rollback is overtaken", func() bool {
		return c.deployment().Spec.Template.Annotations[v1alpha1.DigestsAnnotation] == "" && size(c.pinnedTo("one")) == 0
	})
	c.comeUp("one")
	c.eventually("pinned to the third build", func() bool { return c.pinnedTo("three") != nil })
}

func TestLeavesOtherImagesAlone(t *testing.T) {
	c := start(t, []runtime.Object{anImage()}, simple(1, "registry.example/shop:latest"))
	c.eventually("rolled out", func() bool { return c.pinnedTo("") != nil })
	if annotation, pinned := c.pinnedTo("").Spec.Template.Annotations[v1alpha1.DigestsAnnotation]; pinned {
		t.Errorf("pinned to %q", annotation)
	}
	if got := c.deployment().Annotations[observedAnnotation]; got != "" {
		t.Errorf("recorded %q", got)
	}
}

func TestAdoptsAReplicaSet(t *testing.T) {
	d := simple(2, "web")
	orphan, err := newSet(d)
	if err != nil {
		t.Fatal(err)
	}
	orphan.OwnerReferences, orphan.UID = nil, "orphan"
	c := start(t, nil, d, orphan)
	c.eventually("adopted and scaled", func() bool {
		rs, err := c.client.AppsV1().ReplicaSets("shop").Get(t.Context(), orphan.Name, metav1.GetOptions{})
		return err == nil && metav1.IsControlledBy(rs, d) && size(rs) == 2
	})
}
