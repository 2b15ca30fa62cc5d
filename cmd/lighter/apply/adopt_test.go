package apply

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestChangeOwner: only what our own verbs have set changes hands.
func TestChangeOwner(t *testing.T) {
	entry := func(manager string, operation metav1.ManagedFieldsOperationType, subresource string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{
			Manager: manager, Operation: operation, Subresource: subresource, APIVersion: "lighter.dev/v1alpha1",
			FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:source":{"f:path":{}}}}`),
		}
	}
	for name, test := range map[string]struct {
		fields []metav1.ManagedFieldsEntry
		want   bool
	}{
		"a verb":          {[]metav1.ManagedFieldsEntry{entry(Manager, metav1.ManagedFieldsOperationUpdate, "")}, true},
		"a verb, later":   {[]metav1.ManagedFieldsEntry{entry(Manager, metav1.ManagedFieldsOperationApply, ""), entry(Manager, metav1.ManagedFieldsOperationUpdate, "")}, true},
		"apply itself":    {[]metav1.ManagedFieldsEntry{entry(Manager, metav1.ManagedFieldsOperationApply, "")}, false},
		"somebody else":   {[]metav1.ManagedFieldsEntry{entry("kubectl-edit", metav1.ManagedFieldsOperationUpdate, "")}, false},
		"the status' own": {[]metav1.ManagedFieldsEntry{entry(Manager, metav1.ManagedFieldsOperationUpdate, "status")}, false},
	} {
		live := &unstructured.Unstructured{Object: map[string]any{}}
		live.SetResourceVersion("7")
		live.SetManagedFields(test.fields)
		patch, err := changeOwner(live)
		if err != nil || (patch != nil) != test.want || test.want && !strings.Contains(string(patch), `"7"`) {
			t.Errorf("%s: %s, %v", name, patch, err)
		}
	}
}
