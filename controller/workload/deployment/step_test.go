package deployment

import (
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// world plays API server, ReplicaSet reconciler and kubelet for decide.
type world struct {
	t    *testing.T
	d    *appsv1.Deployment
	sets []*appsv1.ReplicaSet
	live map[string]int
	now  time.Time
	// broken are images whose pods never become available.
	broken map[string]bool
	// created counts ReplicaSets, for UIDs and times.
	created int
}

func newWorld(t *testing.T, replicas int32, surge, unavailable intstr.IntOrString) *world {
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "d", Generation: 1},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, ProgressDeadlineSeconds: new(int32(600)), RevisionHistoryLimit: new(int32(2)),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}},
		},
	}
	d.Spec.Template.Labels = map[string]string{"app": "web"}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "web", Image: "v1"}}
	return &world{t: t, d: d, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), broken: map[string]bool{}}
}

func (w *world) use(image string) {
	w.d.Spec.Template.Spec.Containers[0].Image = image
	w.d.Generation++
}

// turn decides once and applies the step; false if nothing changed.
func (w *world) turn(waiting ...string) (step, bool) {
	next, err := decide(w.d, observation{sets: w.sets, live: w.live, waiting: waiting, now: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
	before := w.d.Status.String()
	changed := false
	if rs := next.create; rs != nil {
		w.created++
		rs.UID = types.UID(fmt.Sprint("rs", w.created))
		rs.CreationTimestamp = metav1.NewTime(w.now.Add(time.Duration(w.created) * time.Second))
		w.sets = append(w.sets, rs)
		changed = true
	}
	for _, s := range next.change {
		i := slices.Index(w.sets, s.is)
		w.sets[i] = s.want
		changed = true
	}
	for _, rs := range next.remove {
		w.sets = slices.DeleteFunc(w.sets, func(other *appsv1.ReplicaSet) bool { return other == rs })
		changed = true
	}
	w.d.Status = next.status
	return next, changed || before != w.d.Status.String()
}

// run lets all pods follow at once and checks the promises of a rolling update
// after every step.
func (w *world) run() {
	w.t.Helper()
	surge, unavailable := fenceposts(w.d)
	lowest := wantedSize(w.d) - unavailable
	if w.available() < lowest {
		lowest = w.available() // not yet, or not any more, the rollout's fault
	}
	for turns := 0; ; turns++ {
		_, changed := w.turn()
		var replicas int32
		for _, rs := range w.sets {
			replicas += size(rs)
		}
		if most := max(wantedSize(w.d)+surge, w.pods()); replicas > most {
			w.t.Fatalf("turn %d: %d replicas, at most %d allowed", turns, replicas, most)
		}
		moved := w.follow()
		if w.available() < lowest {
			w.t.Fatalf("turn %d: %d available, at least %d promised", turns, w.available(), lowest)
		}
		if !changed && !moved {
			return
		}
		if turns > 200 {
			w.t.Fatal("does not come to rest")
		}
	}
}

// follow sets every ReplicaSet's status as if its pods had come up or gone.
func (w *world) follow() bool {
	moved := false
	for i, rs := range w.sets {
		status := appsv1.ReplicaSetStatus{Replicas: size(rs), ReadyReplicas: size(rs), AvailableReplicas: size(rs), ObservedGeneration: rs.Generation}
		if w.broken[rs.Spec.Template.Spec.Containers[0].Image] {
			status.ReadyReplicas, status.AvailableReplicas = 0, 0
		}
		if rs.Status.Replicas != status.Replicas || rs.Status.AvailableReplicas != status.AvailableReplicas {
			followed := *rs
			followed.Status = status
			w.sets[i] = &followed
			moved = true
		}
	}
	return moved
}

func (w *world) available() (n int32) {
	for _, rs := range w.sets {
		n += rs.Status.AvailableReplicas
	}
	return n
}

func (w *world) pods() (n int32) {
	for _, rs := range w.sets {
		n += rs.Status.Replicas
	}
	return n
}

func (w *world) byImage(image string) *appsv1.ReplicaSet {
	for _, rs := range w.sets {
		if rs.Spec.Template.Spec.Containers[0].Image == image {
			return rs
		}
	}
	return nil
}

func (w *world) reason() string {
	if condition := find(&w.d.Status, appsv1.DeploymentProgressing); condition != nil {
		return condition.Reason
	}
	return ""
}

func TestRollingUpdateKeepsItsPromises(t *testing.T) {
	number, percent := intstr.FromInt32, intstr.FromString
	for _, test := range []struct {
		replicas           int32
		surge, unavailable intstr.IntOrString
	}{
		{1, percent("25%"), percent("25%")}, {3, percent("25%"), percent("25%")}, {10, percent("25%"), percent("25%")},
		{5, number(0), number(1)}, {5, number(1), number(0)}, {2, percent("0%"), percent("1%")},
		{7, percent("100%"), percent("0%")}, {7, number(3), number(20)}, {0, number(1), number(1)},
	} {
		t.Run(fmt.Sprintf("%d +%s -%s", test.replicas, test.surge.String(), test.unavailable.String()), func(t *testing.T) {
			w := newWorld(t, test.replicas, test.surge, test.unavailable)
			for i, image := range []string{"v1", "v2", "v3", "v2"} {
				w.use(image)
				w.run()
				if got := size(w.byImage(image)); got != test.replicas || w.pods() != test.replicas {
					t.Fatalf("%s: new ReplicaSet has %d of %d pods, %d wanted", image, got, w.pods(), test.replicas)
				}
				if got := revisionOf(w.byImage(image)); got != int64(i+1) {
					t.Errorf("%s is revision %d, want %d", image, got, i+1)
				}
				if w.reason() != reasonComplete || !complete(w.d, &w.d.Status) {
					t.Errorf("%s: Progressing says %s", image, w.reason())
				}
			}
			if got := w.byImage("v2").Annotations[revisionHistoryAnnotation]; got != "2" {
				t.Errorf("history of the rolled back revision is %q", got)
			}
		})
	}
}

func TestBrokenVersionStopsAtTheFence(t *testing.T) {
	w := newWorld(t, 10, intstr.FromInt32(3), intstr.FromInt32(2))
	w.run()
	w.broken["bad"] = true
	w.use("bad")
	w.run()
	if good := w.byImage("v1").Status.AvailableReplicas; good != 8 {
		t.Errorf("%d good pods serve, want 8", good)
	}
	if bad := size(w.byImage("bad")); bad != 5 {
		t.Errorf("%d bad pods, want 5 (13 at most in all)", bad)
	}
	if next, _ := w.turn(); next.recheck <= 0 || next.recheck > 601*time.Second {
		t.Errorf("looks at the deadline in %v", next.recheck)
	}
	w.now = w.now.Add(time.Hour)
	w.turn()
	if w.reason() != reasonTimedOut {
		t.Errorf("Progressing says %s after an hour", w.reason())
	}
	w.use("v1")
	w.run()
	if w.reason() != reasonComplete || size(w.byImage("v1")) != 10 || size(w.byImage("bad")) != 0 {
		t.Errorf("rollback: %s, good %d, bad %d", w.reason(), size(w.byImage("v1")), size(w.byImage("bad")))
	}
}

func TestHistoryLimit(t *testing.T) {
	w := newWorld(t, 1, intstr.FromInt32(1), intstr.FromInt32(0))
	for _, image := range []string{"v1", "v2", "v3", "v4", "v5"} {
		w.use(image)
		w.run()
	}
	if len(w.sets) != 3 || w.byImage("v1") != nil || w.byImage("v2") != nil {
		t.Errorf("%d ReplicaSets are left, want the newest and 2 of history", len(w.sets))
	}
}

func TestPausedScalesInProportion(t *testing.T) {
	w := newWorld(t, 10, intstr.FromInt32(3), intstr.FromInt32(2))
	w.run()
	w.broken["bad"] = true
	w.use("bad")
	w.run() // 8 + 5
	w.d.Spec.Paused = true
	w.d.Spec.Replicas = new(int32(20))
	w.d.Generation++
	w.run()
	good, bad := size(w.byImage("v1")), size(w.byImage("bad"))
	if good != 14 || bad != 9 { // 23 in all, as 8 to 5
		t.Errorf("scaled to %d + %d, want 14 + 9", good, bad)
	}
	if w.reason() != reasonPaused {
		t.Errorf("Progressing says %s", w.reason())
	}
	w.use("v3")
	w.run()
	if w.byImage("v3") != nil {
		t.Error("rolled out although paused")
	}
	w.d.Spec.Paused = false
	w.d.Generation++
	w.run()
	if size(w.byImage("v3")) != 20 || w.reason() != reasonComplete {
		t.Errorf("after resume: %d new pods, %s", size(w.byImage("v3")), w.reason())
	}
}

func TestScaleToZeroAndBack(t *testing.T) {
	w := newWorld(t, 4, intstr.FromInt32(1), intstr.FromInt32(1))
	for _, replicas := range []int32{4, 0, 7, 1} {
		w.d.Spec.Replicas = &replicas
		w.d.Generation++
		w.run()
		if w.pods() != replicas || len(w.sets) != 1 {
			t.Errorf("%d pods in %d ReplicaSets, want %d in 1", w.pods(), len(w.sets), replicas)
		}
	}
}

func TestRecreateWaitsForTheLastPod(t *testing.T) {
	w := newWorld(t, 3, intstr.FromInt32(1), intstr.FromInt32(1))
	w.d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	w.run()
	w.use("v2")
	w.live = map[string]int{string(w.byImage("v1").UID): 1} // one is slow to stop
	for range 5 {
		w.turn()
		w.follow()
	}
	if w.byImage("v2") != nil || w.pods() != 0 {
		t.Fatalf("%d pods, new ReplicaSet %v: want neither while an old pod runs", w.pods(), w.byImage("v2"))
	}
	w.live = nil
	w.run()
	if size(w.byImage("v2")) != 3 || w.reason() != reasonComplete {
		t.Errorf("%d new pods, %s", size(w.byImage("v2")), w.reason())
	}
}

func TestWaitsForAnImageWithoutTouchingWhatServes(t *testing.T) {
	w := newWorld(t, 3, intstr.FromInt32(1), intstr.FromInt32(1))
	const advice = "image \"shop\" has not been built"
	next, _ := w.turn(advice)
	if next.create != nil || w.reason() != reasonWaiting {
		t.Fatalf("created %v, Progressing says %s", next.create, w.reason())
	}
	w.run()
	if w.reason() != reasonComplete {
		t.Fatalf("after the build: %s", w.reason())
	}
	w.use("v2")
	w.d.Spec.Replicas = new(int32(5))
	for range 3 {
		w.turn(advice)
		w.follow()
	}
	if w.byImage("v2") != nil || size(w.byImage("v1")) != 5 {
		t.Errorf("the old version has %d pods, want it to follow the size 5", size(w.byImage("v1")))
	}
	w.now = w.now.Add(time.Hour)
	w.turn(advice)
	if got := find(&w.d.Status, appsv1.DeploymentProgressing); got.Reason != reasonWaiting || got.Message != advice {
		t.Errorf("after an hour: %s %q", got.Reason, got.Message)
	}
}

func TestDeletedDeploymentOnlyReports(t *testing.T) {
	w := newWorld(t, 3, intstr.FromInt32(1), intstr.FromInt32(1))
	w.run()
	w.use("v2")
	w.d.DeletionTimestamp = &metav1.Time{Time: w.now}
	if next, _ := w.turn(); next.create != nil || next.change != nil || next.remove != nil {
		t.Error("acts for a Deployment that is being deleted")
	}
}

func TestCollisionsChangeTheName(t *testing.T) {
	w := newWorld(t, 1, intstr.FromInt32(1), intstr.FromInt32(1))
	one, _ := newSet(w.d)
	w.d.Status.CollisionCount = new(int32(1))
	two, _ := newSet(w.d)
	if one.Name == two.Name {
		t.Error("a collision leads to the same name")
	}
	if hash := one.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; one.Name != "web-"+hash || one.Spec.Selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] != hash {
		t.Errorf("name %s, hash %s, selector %v", one.Name, hash, one.Spec.Selector)
	}
}
