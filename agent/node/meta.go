package node

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// patchMeta brings labels and annotations up to date. It asks the API for
// nothing when they are as it wrote them last.
func (n *Node) patchMeta(ctx context.Context) error {
	annotations := n.currentAnnotations()
	n.mu.Lock()
	same := n.written != nil && maps.Equal(annotations, n.written)
	n.mu.Unlock()
	if same {
		return nil
	}
	patch := map[string]any{"metadata": map[string]any{"labels": n.labels(), "annotations": annotations}}
	data, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = n.cfg.Client.CoreV1().Nodes().Patch(ctx, n.cfg.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("patch labels and annotations of node %s: %w", n.cfg.Name, err)
	}
	n.mu.Lock()
	n.written = annotations
	n.mu.Unlock()
	return nil
}
