package lifecycle

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var testConfig = NodesConfig{Grace: DefaultGrace, EvictAfterNotReady: 5 * time.Minute, MaxLost: 0.55}

func nodeWith(ready corev1.ConditionStatus, taints ...corev1.Taint) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "host-1", UID: "host-1"}, Spec: corev1.NodeSpec{Taints: taints}}
	if ready != "" {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	}
	return n
}

func taint(key string, effect corev1.TaintEffect) corev1.Taint {
	return corev1.Taint{Key: key, Effect: effect}
}

func TestDecide(t *testing.T) {
	const (
		unreachable, notReady = corev1.TaintNodeUnreachable, corev1.TaintNodeNotReady
		noSchedule, execute   = corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute
	)
	foreign := taint("example.com/gpu", noSchedule)
	for name, c := range map[string]struct {
		view  view
		lost  bool
		evict bool
		want  []corev1.Taint
	}{
		"healthy":                            {view{node: nodeWith("True"), age: time.Second}, false, false, nil},
		"healthy again: taints go":           {view{node: nodeWith("True", taint(unreachable, execute), foreign), age: 0}, false, false, []corev1.Taint{foreign}},
		"five seconds of partition":          {view{node: nodeWith("True"), age: 6 * time.Second}, false, false, nil},
		"lost":                               {view{node: nodeWith("True", foreign), age: DefaultGrace}, true, true, []corev1.Taint{foreign, taint(unreachable, noSchedule), taint(unreachable, execute)}},
		"lost, but so are most others":       {view{node: nodeWith("True"), age: DefaultGrace, guard: true}, true, false, []corev1.Taint{taint(unreachable, noSchedule)}},
		"lost, tainted, then most others":    {view{node: nodeWith("Unknown", taint(unreachable, execute)), age: time.Minute, guard: true}, true, false, []corev1.Taint{taint(unreachable, noSchedule)}},
		"agent says not ready":               {view{node: nodeWith("False")}, false, true, []corev1.Taint{taint(notReady, noSchedule), taint(notReady, execute)}},
		"just registered":                    {view{node: nodeWith("")}, false, false, []corev1.Taint{taint(notReady, noSchedule)}},
		"back, but has not said how it does": {view{node: nodeWith("Unknown", taint(unreachable, execute))}, false, false, []corev1.Taint{taint(notReady, noSchedule)}},
		"somebody else's NoExecute":          {view{node: nodeWith("True", taint("drain", execute))}, false, true, []corev1.Taint{taint("drain", execute)}},
	} {
		t.Run(name, func(t *testing.T) {
			c.view.now = time.Unix(1000, 0)
			p := decide(c.view, testConfig)
			if p.lost != c.lost || p.evict != c.evict || len(p.taints) != len(c.want) {
				t.Fatalf("lost %v evict %v taints %v, want %v %v %v", p.lost, p.evict, p.taints, c.lost, c.evict, c.want)
			}
			for i := range c.want {
				if !taintMatcher(c.want[i])(p.taints[i]) {
					t.Errorf("taints %v, want %v", p.taints, c.want)
				}
			}
			if p.again <= 0 {
				t.Errorf("looks again after %v", p.again)
			}
		})
	}
}

func TestEvictionTime(t *testing.T) {
	now := time.Unix(1000, 0)
	added := metav1.NewTime(now.Add(-10 * time.Second))
	lost := corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute, TimeAdded: &added}
	sick := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute, TimeAdded: &added}
	other := corev1.Taint{Key: "maintenance", Value: "now", Effect: corev1.TaintEffectNoExecute, TimeAdded: &added}
	for name, c := range map[string]struct {
		taints      []corev1.Taint
		tolerations []corev1.Toleration
		after       time.Duration // from TimeAdded; negative: stays
	}{
		"lost, nothing said":         {[]corev1.Taint{lost}, nil, 0},
		"not ready, nothing said":    {[]corev1.Taint{sick}, nil, 5 * time.Minute},
		"tolerates for 300 s":        {[]corev1.Taint{lost}, []corev1.Toleration{{Key: lost.Key, Operator: "Exists", Effect: "NoExecute", TolerationSeconds: ptr.To[int64](300)}}, 300 * time.Second},
		"tolerates for ever":         {[]corev1.Taint{lost}, []corev1.Toleration{{Key: lost.Key, Operator: "Exists"}}, -1},
		"tolerates everything":       {[]corev1.Taint{lost, other}, []corev1.Toleration{{Operator: "Exists"}}, -1},
		"shortest counts":            {[]corev1.Taint{lost}, []corev1.Toleration{{Operator: "Exists"}, {Key: lost.Key, Operator: "Exists", TolerationSeconds: ptr.To[int64](7)}}, 7 * time.Second},
		"negative means at once":     {[]corev1.Taint{lost}, []corev1.Toleration{{Operator: "Exists", TolerationSeconds: ptr.To[int64](-3)}}, 0},
		"tolerates one of two":       {[]corev1.Taint{lost, other}, []corev1.Toleration{{Key: lost.Key, Operator: "Exists"}}, 0},
		"value must fit":             {[]corev1.Taint{other}, []corev1.Toleration{{Key: "maintenance", Value: "later"}}, 0},
		"value fits":                 {[]corev1.Taint{other}, []corev1.Toleration{{Key: "maintenance", Value: "now"}}, -1},
		"other effect does not help": {[]corev1.Taint{lost}, []corev1.Toleration{{Key: lost.Key, Operator: "Exists", Effect: "NoSchedule"}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: c.tolerations}}
			at, leaves := evictionTime(pod, c.taints, now, testConfig)
			if leaves != (c.after >= 0) || leaves && !at.Equal(added.Add(c.after)) {
				t.Errorf("leaves %v, %v after the taint; want %v", leaves, at.Sub(added.Time), c.after)
			}
		})
	}
}
