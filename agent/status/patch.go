package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// errOtherPod: the name belongs to a newer pod now.
var errOtherPod = errors.New("a pod of this name with another UID exists")

// patch writes the difference between what the API has and what is wanted to
// the status subresource. It returns nil without an error if there is none.
func (m *Manager) patch(ctx context.Context, api *corev1.Pod, wanted *corev1.PodStatus) (*corev1.Pod, error) {
	next := wanted.DeepCopy()
	keepForeign(&api.Status, next)
	data, err := diff(api, next)
	if err != nil || data == nil {
		return nil, err
	}
	result, err := m.client.CoreV1().Pods(api.Namespace).Patch(ctx, api.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{}, "status")
	if apierrors.IsConflict(err) || apierrors.IsInvalid(err) && m.replaced(ctx, api) {
		return nil, errOtherPod
	}
	if err != nil {
		return nil, fmt.Errorf("patch status of pod %s/%s: %w", api.Namespace, api.Name, err)
	}
	return result, nil
}

// replaced asks whether the name belongs to another pod.
func (m *Manager) replaced(ctx context.Context, api *corev1.Pod) bool {
	now, err := m.client.CoreV1().Pods(api.Namespace).Get(ctx, api.Name, metav1.GetOptions{})
	return apierrors.IsNotFound(err) || err == nil && now.UID != api.UID
}

// keepForeign carries over what others write into a pod's status: conditions
// of readiness gates and of the control plane, and the nominated node.
func keepForeign(have, want *corev1.PodStatus) {
	ours := map[corev1.PodConditionType]bool{}
	for _, c := range want.Conditions {
		ours[c.Type] = true
	}
	for _, c := range have.Conditions {
		if !ours[c.Type] {
			want.Conditions = append(want.Conditions, c)
		}
	}
	if want.QOSClass == "" {
		want.QOSClass = have.QOSClass
	}
	if have.StartTime != nil {
		want.StartTime = have.StartTime
	}
	want.Resize, want.Resources, want.AllocatedResources = have.Resize, have.Resources, have.AllocatedResources
	want.EphemeralContainerStatuses = have.EphemeralContainerStatuses
	want.ResourceClaimStatuses = have.ResourceClaimStatuses
	want.ExtendedResourceClaimStatus = have.ExtendedResourceClaimStatus
}

// diff makes a strategic merge patch that also names the UID, so that the API
// refuses it for a namesake. It is nil when nothing differs.
func diff(api *corev1.Pod, next *corev1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(corev1.Pod{Status: api.Status})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(corev1.Pod{Status: *next})
	if err != nil {
		return nil, err
	}
	change, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("compute status patch: %w", err)
	}
	if string(change) == "{}" {
		return nil, nil
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(change, &fields); err != nil {
		return nil, err
	}
	uid, err := json.Marshal(map[string]types.UID{"uid": api.UID})
	if err != nil {
		return nil, err
	}
	fields["metadata"] = uid
	return json.Marshal(fields)
}
