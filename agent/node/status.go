package node

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

const (
	// The thresholds are kubelet's defaults for hard eviction.
	minMemory      = 100 << 20 // bytes
	minDiskPercent = 10
	minInodes      = 5  // percent
	maxTasks       = 90 // percent

	// checkPeriod is how often pressure is looked at.
	checkPeriod = 10 * time.Second
	// imagesPause bundles changes of the image list, of which a pull or a build
	// makes several.
	imagesPause = 300 * time.Millisecond
	// maxImages are reported, the largest first; other hosts find images by
	// this list, so it is longer than kubelet's 50.
	maxImages = 200
)

// keepStatus writes the status when it changed here or in the API, and now and
// then.
func (n *Node) keepStatus(ctx context.Context) {
	check := time.NewTicker(checkPeriod)
	defer check.Stop()
	changed := n.cfg.ImagesChanged()
	for {
		if err := n.writeMetaAndStatus(ctx); err != nil && ctx.Err() == nil {
			n.cfg.Log.Warn("Cannot write node status, will retry", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-check.C:
		case <-n.nudge:
		case <-changed:
			select {
			case <-ctx.Done():
				return
			case <-time.After(imagesPause):
			}
			// Subscribed before the list is read, so no change is missed.
			changed = n.cfg.ImagesChanged()
		}
	}
}

// writeMetaAndStatus also brings a Node back that somebody deleted: a host
// that lives shows itself.
func (n *Node) writeMetaAndStatus(ctx context.Context) error {
	err := n.patchMeta(ctx)
	if err == nil {
		_, err = n.writeStatus(ctx, time.Now())
	}
	if apierrors.IsNotFound(err) {
		n.cfg.Log.Info("The node object is gone, registering again")
		return n.register(ctx)
	}
	return err
}

// Allocatable is what pods may use of this host.
func (n *Node) Allocatable() corev1.ResourceList {
	out := n.capacity()
	for name, reserved := range n.cfg.Reserved {
		if q, ok := out[name]; ok {
			q.Sub(reserved)
			if q.Sign() < 0 {
				q = resource.Quantity{}
			}
			out[name] = q
		}
	}
	return out
}

func (n *Node) capacity() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(n.host.cpus, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(n.host.memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(n.host.storage, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(n.cfg.MaxPods, resource.DecimalSI),
	}
}

// status is the Node's status as it is now. Heartbeats are set to now, and
// transitions where a condition differs from before.
func (n *Node) status(ctx context.Context, before *corev1.NodeStatus, now time.Time) *corev1.NodeStatus {
	st := &corev1.NodeStatus{
		Capacity: n.capacity(), Allocatable: n.Allocatable(),
		Addresses:       []corev1.NodeAddress{},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: n.cfg.Port}},
		NodeInfo:        n.host.info,
		Images:          n.listImages(ctx),
	}
	st.NodeInfo.ContainerRuntimeVersion = "lighter://" + n.cfg.Version
	st.NodeInfo.KubeletVersion = n.cfg.Version
	for _, ip := range n.cfg.IPs {
		st.Addresses = append(st.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
	}
	st.Addresses = append(st.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.cfg.Hostname})
	st.Conditions = n.conditions()
	stamp := metav1.Time{Time: now.Truncate(time.Second)}
	for i := range st.Conditions {
		c := &st.Conditions[i]
		c.LastHeartbeatTime, c.LastTransitionTime = stamp, stamp
		if old := condition(before, c.Type); old != nil && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
	}
	return st
}

func condition(st *corev1.NodeStatus, kind corev1.NodeConditionType) *corev1.NodeCondition {
	if st == nil {
		return nil
	}
	for i := range st.Conditions {
		if st.Conditions[i].Type == kind {
			return &st.Conditions[i]
		}
	}
	return nil
}

// conditions looks at the host. The reasons are kubelet's, which people and
// tools know.
func (n *Node) conditions() []corev1.NodeCondition {
	network := n.cfg.NetworkReady()
	out := []corev1.NodeCondition{
		problem(corev1.NodeMemoryPressure, memoryLow(), "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "memory"),
		problem(corev1.NodeDiskPressure, n.diskFull(), "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk"),
		problem(corev1.NodePIDPressure, pidsLow(), "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "PIDs"),
	}
	unavailable := corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: "OverlayReady", Message: "pods are connected"}
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "the agent is ready"}
	if network != nil {
		unavailable.Status, unavailable.Reason, unavailable.Message = corev1.ConditionTrue, "OverlayNotReady", network.Error()
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "NetworkNotReady", network.Error()
	}
	return append(out, unavailable, ready)
}

func problem(kind corev1.NodeConditionType, err error, bad, good, what string) corev1.NodeCondition {
	if err != nil {
		return corev1.NodeCondition{Type: kind, Status: corev1.ConditionTrue, Reason: bad, Message: err.Error()}
	}
	return corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: good, Message: "there is enough " + what}
}

func memoryLow() error {
	mem, err := meminfo()
	if err != nil {
		return nil //nolint:nilerr // no news is no pressure
	}
	if free := mem["MemAvailable"]; free < minMemory {
		return fmt.Errorf("%d MiB of memory are available, less than %d", free>>20, minMemory>>20)
	}
	return nil
}

func (n *Node) diskFull() error {
	d, err := statDisk(n.cfg.DataDir)
	switch {
	case err != nil:
		return err
	case d.percentFree < minDiskPercent:
		return fmt.Errorf("%.1f%% of the disk of %s is free, less than %d%%", d.percentFree, n.cfg.DataDir, minDiskPercent)
	case d.inodePct < minInodes:
		return fmt.Errorf("%.1f%% of the inodes of %s are free, less than %d%%", d.inodePct, n.cfg.DataDir, minInodes)
	}
	return nil
}

func pidsLow() error {
	if used, limit := tasks(); limit > 0 && used*100 > limit*maxTasks {
		return fmt.Errorf("%d tasks run, of %d that are allowed", used, limit)
	}
	return nil
}

// listImages keeps the old list when the new one cannot be read.
func (n *Node) listImages(ctx context.Context) []corev1.ContainerImage {
	if n.cfg.Images == nil {
		return nil
	}
	images, err := n.cfg.Images(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			n.cfg.Log.Warn("Cannot list images for the node's status", "err", err)
		}
		return n.images
	}
	n.images = images[:min(len(images), maxImages)]
	return n.images
}

// writeStatus patches what differs from what the API has. It reads that each
// time: the control plane writes Unknown into the conditions of a silent node,
// and only the agent takes that back. Without a difference only an old heartbeat
// is a reason to write. It returns the Node as it was read.
func (n *Node) writeStatus(ctx context.Context, now time.Time) (*corev1.Node, error) {
	nodes := n.cfg.Client.CoreV1().Nodes()
	have, err := nodes.Get(ctx, n.cfg.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("get node %s: %w", n.cfg.Name, err)
	}
	before := &have.Status
	next := n.status(ctx, before, now)
	if !n.due(before, next, now) {
		return have, nil
	}
	data, err := statusPatch(before, next)
	if err != nil {
		return nil, err
	}
	if _, err := nodes.Patch(ctx, n.cfg.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{}, "status"); err != nil {
		return nil, fmt.Errorf("patch status of node %s: %w", n.cfg.Name, err)
	}
	return have, nil
}

// due compares all but the heartbeats.
func (n *Node) due(before, next *corev1.NodeStatus, now time.Time) bool {
	ready := condition(before, corev1.NodeReady)
	if ready == nil || now.Sub(ready.LastHeartbeatTime.Time) >= n.cfg.StatusInterval {
		return true
	}
	same := next.DeepCopy()
	for i := range same.Conditions {
		old := condition(before, same.Conditions[i].Type)
		if old == nil {
			return true
		}
		same.Conditions[i].LastHeartbeatTime = old.LastHeartbeatTime
		if !equality.Semantic.DeepEqual(*old, same.Conditions[i]) {
			return true
		}
	}
	return !equality.Semantic.DeepEqual(before.Capacity, same.Capacity) ||
		!equality.Semantic.DeepEqual(before.Allocatable, same.Allocatable) ||
		!equality.Semantic.DeepEqual(before.Addresses, same.Addresses) ||
		!equality.Semantic.DeepEqual(before.Images, same.Images) ||
		before.DaemonEndpoints != same.DaemonEndpoints ||
		before.NodeInfo.BootID != same.NodeInfo.BootID ||
		before.NodeInfo.ContainerRuntimeVersion != same.NodeInfo.ContainerRuntimeVersion
}

// statusPatch leaves alone what others write into the status.
func statusPatch(before, next *corev1.NodeStatus) ([]byte, error) {
	merged := before.DeepCopy()
	merged.Capacity, merged.Allocatable = next.Capacity, next.Allocatable
	merged.Addresses, merged.DaemonEndpoints = next.Addresses, next.DaemonEndpoints
	merged.NodeInfo, merged.Images = next.NodeInfo, next.Images
	for _, c := range next.Conditions {
		if old := condition(merged, c.Type); old != nil {
			*old = c
		} else {
			merged.Conditions = append(merged.Conditions, c)
		}
	}
	from, err := json.Marshal(corev1.Node{Status: *before})
	if err != nil {
		return nil, err
	}
	to, err := json.Marshal(corev1.Node{Status: *merged})
	if err != nil {
		return nil, err
	}
	return strategicpatch.CreateTwoWayMergePatch(from, to, corev1.Node{})
}
