package apply

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

func TestJudgeContent(t *testing.T) {
	inline := v1alpha1.ImageSource{Inline: "FROM x"}
	configMap := v1alpha1.ImageSource{ConfigMap: &v1alpha1.ConfigMapSource{Name: "files"}}
	tag := v1alpha1.ImageSource{Image: &v1alpha1.TagSource{Ref: "x"}}
	archive := v1alpha1.ImageSource{Archive: &v1alpha1.ArchiveSource{}}
	key := v1alpha1.ImageSource{Git: &v1alpha1.GitSource{URL: "ssh://git@example.com/x"}}
	condition := func(kind string, status metav1.ConditionStatus, reason string, generation int64) metav1.Condition {
		return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: "the message", ObservedGeneration: generation}
	}
	good := condition(v1alpha1.ImageBuilt, metav1.ConditionTrue, v1alpha1.ReasonBuildSucceeded, 2)
	old := condition(v1alpha1.ImageBuilt, metav1.ConditionTrue, v1alpha1.ReasonBuildSucceeded, 1)
	bad := condition(v1alpha1.ImageBuilt, metav1.ConditionFalse, v1alpha1.ReasonBuildFailed, 2)
	waiting := condition(v1alpha1.ImageBuilt, metav1.ConditionUnknown, v1alpha1.ReasonWaitingForBuilder, 2)
	building := condition(v1alpha1.ImageBuilding, metav1.ConditionTrue, v1alpha1.ReasonBuildStarted, 2)
	for _, test := range []struct {
		name       string
		source     v1alpha1.ImageSource
		observed   int64 // 0 is no content
		conditions []metav1.Condition
		state      contentState
		words      string
	}{
		{"new", inline, 0, nil, pending, "the cluster builds it (inline)"},
		{"no builder yet", inline, 0, []metav1.Condition{waiting}, pending, "the message"},
		{"being built", inline, 1, []metav1.Condition{old, building}, pending, "the message"},
		{"changed", inline, 1, []metav1.Condition{old}, pending, "the cluster builds it"},
		{"built", inline, 2, []metav1.Condition{good}, made, "built"},
		{"failed", inline, 1, []metav1.Condition{bad}, failed, "the message"},
		{"of another ConfigMap", configMap, 2, []metav1.Condition{good}, pending, "the cluster builds it (configmap/files)"},
		{"to be tagged", tag, 0, nil, pending, "to tag it"},
		{"tagged before a change", tag, 1, nil, pending, "to tag it"},
		{"tagged", tag, 2, nil, made, "tagged"},
		{"to be sent", archive, 0, nil, absent, "lighter import"},
		{"sent", archive, 1, nil, made, "has its content"},
		{"to be built with a key", key, 0, nil, absent, "lighter build --ssh"},
	} {
		image := &v1alpha1.Image{}
		image.Generation, image.Spec.Source = 2, test.source
		image.Status.ObservedGeneration, image.Status.Conditions = test.observed, test.conditions
		if test.observed != 0 {
			image.Status.Digest = "sha256:1"
		}
		hash := ""
		if test.source.ConfigMap != nil {
			hash = "now"
		}
		state, words := judgeContent(image, hash)
		if state != test.state || !strings.Contains(words, test.words) {
			t.Errorf("%s: %d %q, want %d %q", test.name, state, words, test.state, test.words)
		}
	}
}
