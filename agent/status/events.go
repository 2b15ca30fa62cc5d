package status

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// Component is who the Events of an agent are from.
const Component = "lighter-agent"

// NewRecorder starts a recorder of Events whose source is this node. It
// aggregates and rate-limits as every Kubernetes component does, and stops
// with ctx.
func NewRecorder(ctx context.Context, client kubernetes.Interface, nodeName string) record.EventRecorder {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	context.AfterFunc(ctx, broadcaster.Shutdown)
	return broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: Component, Host: nodeName})
}
