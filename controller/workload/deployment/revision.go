package deployment

import (
	"cmp"
	"encoding/json"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
)

// Annotations that kubectl and other clients of Deployments read and write.
const (
	revisionAnnotation        = "deployment.kubernetes.io/revision"
	revisionHistoryAnnotation = "deployment.kubernetes.io/revision-history"
	desiredAnnotation         = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation             = "deployment.kubernetes.io/max-replicas"
	// historyLimit bounds the revision-history annotation, in characters.
	historyLimit = 2000
)

// notCopied are the annotations of a Deployment that its ReplicaSets do not
// get. The observed digests must not: a rollback would bring old ones back and
// so make the pins that come with it look overtaken.
var notCopied = map[string]bool{
	corev1.LastAppliedConfigAnnotation: true,
	revisionAnnotation:                 true,
	revisionHistoryAnnotation:          true,
	desiredAnnotation:                  true,
	maxAnnotation:                      true,
	appsv1.DeprecatedRollbackTo:        true,
	observedAnnotation:                 true,
}

var kind = appsv1.SchemeGroupVersion.WithKind("Deployment")

// byAge orders from old to new.
func byAge(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// findNew returns the ReplicaSet with the Deployment's template, the oldest if
// there are several: all parties then agree on one.
func findNew(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	for _, rs := range slices.SortedFunc(slices.Values(sets), byAge) {
		if sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			return rs
		}
	}
	return nil
}

// sameTemplate compares templates but for the hash label, which the ReplicaSet
// reconciler's templates have and the user's have not.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	return equality.Semantic.DeepEqual(withoutHash(a), withoutHash(b))
}

func withoutHash(template *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	if _, labelled := template.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; !labelled {
		return template
	}
	bare := *template
	bare.Labels = maps.Clone(template.Labels)
	delete(bare.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return &bare
}

// templateHash names a template. Two templates may collide; collisions then
// counts up and changes the hash.
func templateHash(template *corev1.PodTemplateSpec, collisions *int32) (string, error) {
	encoded, err := json.Marshal(withoutHash(template))
	if err != nil {
		return "", err
	}
	hash := fnv.New32a()
	hash.Write(encoded)
	if collisions != nil {
		hash.Write([]byte(strconv.FormatInt(int64(*collisions), 10)))
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(hash.Sum32()), 10)), nil
}

// newSet is the ReplicaSet for the Deployment's template, still without
// replicas. Its name follows from the template, so that creating it twice is
// refused by the API server.
func newSet(d *appsv1.Deployment) (*appsv1.ReplicaSet, error) {
	hash, err := templateHash(&d.Spec.Template, d.Status.CollisionCount)
	if err != nil {
		return nil, err
	}
	template := d.Spec.Template.DeepCopy()
	if template.Labels == nil {
		template.Labels = map[string]string{}
	}
	template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	selector := metav1.CloneSelectorAndAddLabel(d.Spec.Selector, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	name := d.Name
	if longest := 253 - 1 - len(hash); len(name) > longest { // RFC 1123 subdomain
		name = name[:longest]
	}
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name:            name + "-" + hash,
			Namespace:       d.Namespace,
			Labels:          maps.Clone(template.Labels),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, kind)},
		},
		Spec: appsv1.ReplicaSetSpec{
			Replicas:        new(int32),
			MinReadySeconds: d.Spec.MinReadySeconds,
			Selector:        selector,
			Template:        *template,
		},
	}, nil
}

func revisionOf(obj metav1.Object) int64 {
	revision, err := strconv.ParseInt(obj.GetAnnotations()[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return revision
}

func maxRevision(sets []*appsv1.ReplicaSet) int64 {
	var highest int64
	for _, rs := range sets {
		highest = max(highest, revisionOf(rs))
	}
	return highest
}

// annotateNew brings the new ReplicaSet's annotations up to date: the
// Deployment's own ones, and its revision, which is the highest of all. When a
// rollback makes an old ReplicaSet new again, its former revision goes into the
// history.
func annotateNew(d *appsv1.Deployment, rs *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) {
	annotations := maps.Clone(rs.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	for key, value := range d.Annotations {
		if !notCopied[key] {
			annotations[key] = value
		}
	}
	before, wanted := revisionOf(rs), maxRevision(old)+1
	if before < wanted {
		annotations[revisionAnnotation] = strconv.FormatInt(wanted, 10)
		if before > 0 {
			history := append(splitHistory(annotations[revisionHistoryAnnotation]), strconv.FormatInt(before, 10))
			for len(strings.Join(history, ",")) > historyLimit {
				history = history[1:]
			}
			annotations[revisionHistoryAnnotation] = strings.Join(history, ",")
		}
	}
	rs.Annotations = annotations
}

func splitHistory(history string) []string {
	if history == "" {
		return nil
	}
	return strings.Split(history, ",")
}

// outdated picks the old ReplicaSets beyond spec.revisionHistoryLimit, lowest
// revisions first, among those that are empty and observed as such.
func outdated(d *appsv1.Deployment, old []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	if d.Spec.RevisionHistoryLimit == nil {
		return nil
	}
	var living []*appsv1.ReplicaSet
	for _, rs := range old {
		if rs.DeletionTimestamp == nil {
			living = append(living, rs)
		}
	}
	excess := len(living) - int(*d.Spec.RevisionHistoryLimit)
	if excess <= 0 {
		return nil
	}
	slices.SortFunc(living, func(a, b *appsv1.ReplicaSet) int {
		return cmp.Or(cmp.Compare(revisionOf(a), revisionOf(b)), byAge(a, b))
	})
	var gone []*appsv1.ReplicaSet
	for _, rs := range living[:excess] {
		if size(rs) == 0 && rs.Status.Replicas == 0 && rs.Status.ObservedGeneration >= rs.Generation {
			gone = append(gone, rs)
		}
	}
	return gone
}
