package owner

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

var kind = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "ReplicaSet"}

func parent() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "parent", Namespace: "ns", UID: "p"}}
}

// child matches the selector app=web if label is "web".
func child(name, label, owner string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name), Labels: map[string]string{"app": label}}}
	if owner != "" {
		pod.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(owner), Controller: new(true)}}
	}
	return pod
}

func names(pods []*corev1.Pod) string {
	var list []string
	for _, pod := range pods {
		list = append(list, pod.Name)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestDecide(t *testing.T) {
	dying := child("dying", "web", "")
	dying.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	candidates := []*corev1.Pod{
		child("mine", "web", "p"), child("astray", "other", "p"), child("orphan", "web", ""),
		child("stranger", "other", ""), child("foreign", "web", "else"), dying,
	}
	selector := labels.SelectorFromSet(labels.Set{"app": "web"})
	claim := Decide(parent(), selector, candidates)
	if got := names(claim.Owned) + "/" + names(claim.Adopt) + "/" + names(claim.Release); got != "mine/orphan/astray" {
		t.Errorf("owned/adopt/release = %s", got)
	}
	late := parent()
	late.DeletionTimestamp = dying.DeletionTimestamp
	claim = Decide(late, selector, candidates)
	if got := names(claim.Owned) + "/" + names(claim.Adopt) + "/" + names(claim.Release); got != "mine//" {
		t.Errorf("of a dying parent: owned/adopt/release = %s", got)
	}
}

func TestCarry(t *testing.T) {
	resource := schema.GroupResource{Resource: "pods"}
	boom := errors.New("boom")
	dying := parent()
	dying.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	other := parent()
	other.UID = "other"
	for _, test := range []struct {
		name  string
		fresh *corev1.Pod
		patch error
		owned string
		fails bool
	}{
		{"all is well", parent(), nil, "mine orphan", false},
		{"the parent dies", dying, nil, "mine", false},
		{"the parent was replaced", other, nil, "mine", true},
		{"the children are gone", parent(), apierrors.NewNotFound(resource, "x"), "mine", false},
		{"the API fails", parent(), boom, "mine", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			patches := map[string]string{}
			claim := Claim[*corev1.Pod]{
				Owned: []*corev1.Pod{child("mine", "web", "p")}, Adopt: []*corev1.Pod{child("orphan", "web", "")},
				Release: []*corev1.Pod{child("astray", "other", "p")},
			}
			owned, err := Carry(t.Context(), parent(), claim, Access[*corev1.Pod]{
				Kind:  kind,
				Fresh: func(context.Context) (metav1.Object, error) { return test.fresh, nil },
				Patch: func(_ context.Context, pod *corev1.Pod, patch []byte) error {
					patches[pod.Name] = string(patch)
					return test.patch
				},
			})
			if names(owned) != test.owned || (err != nil) != test.fails {
				t.Errorf("owned %s, error %v", names(owned), err)
			}
			if patch, done := patches["orphan"]; done && (!strings.Contains(patch, `"uid":"orphan"`) || !strings.Contains(patch, `"controller":true`)) {
				t.Errorf("adopted by %s", patch)
			}
			if patch, done := patches["astray"]; done && patch != `{"metadata":{"ownerReferences":[{"$patch":"delete","uid":"p"}],"uid":"astray"}}` {
				t.Errorf("released by %s", patch)
			}
		})
	}
}

func TestCandidatesComeFromTheIndex(t *testing.T) {
	informer := cache.NewSharedIndexInformer(&cache.ListWatch{}, &corev1.Pod{}, 0, cache.Indexers{})
	for range 2 { // the second time does nothing
		if err := Index(informer); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := child("elsewhere", "web", "")
	elsewhere.Namespace = "other"
	for _, pod := range []*corev1.Pod{child("mine", "web", "p"), child("orphan", "x", ""), child("foreign", "web", "else"), elsewhere} {
		if err := informer.GetIndexer().Add(pod); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Candidates[*corev1.Pod](informer.GetIndexer(), parent())
	if err != nil || names(found) != "mine orphan" {
		t.Errorf("candidates %s, %v", names(found), err)
	}
	if found, err = Children[*corev1.Pod](informer.GetIndexer(), "else"); err != nil || names(found) != "foreign" {
		t.Errorf("children %s, %v", names(found), err)
	}
}
