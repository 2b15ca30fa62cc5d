package apiserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	schedulingapiv1 "k8s.io/kubernetes/pkg/apis/scheduling/v1"

	"lighter.dev/lighter/api/cluster"
)

// bootstrap makes the objects that every cluster has. It is safe to repeat:
// roles are brought up to date, keys are never replaced.
func (s *Server) bootstrap(ctx context.Context) error {
	const retry = 50 * time.Millisecond
	var last error
	err := wait.PollUntilContextTimeout(ctx, retry, time.Minute, true, func(ctx context.Context) (bool, error) {
		last = s.bootstrapOnce(ctx)
		if errors.Is(last, errOtherRanges) {
			return false, last
		}
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("make the cluster's own objects: %w", last)
	}
	return nil
}

// errOtherRanges: agents, pods and services already have addresses; waiting does
// not help.
var errOtherRanges = errors.New("the cluster's address ranges and domain cannot be changed")

func (s *Server) bootstrapOnce(ctx context.Context) error {
	for _, name := range []string{metav1.NamespaceSystem, corev1.NamespaceNodeLease, metav1.NamespacePublic, metav1.NamespaceDefault} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		_, err := s.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
		if ignore(err, apierrors.IsAlreadyExists) != nil {
			return err
		}
	}
	if err := s.ensureGossipKey(ctx); err != nil {
		return err
	}
	if err := s.ensureClusterInfo(ctx); err != nil {
		return err
	}
	if err := s.ensurePriorityClasses(ctx); err != nil {
		return err
	}
	return s.ensurePolicy(ctx)
}

// ensureGossipKey makes the key that agents encrypt their membership gossip with.
func (s *Server) ensureGossipKey(ctx context.Context) error {
	key := make([]byte, cluster.GossipKeyBytes)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: cluster.GossipSecret, Namespace: metav1.NamespaceSystem},
		Data:       map[string][]byte{cluster.GossipKey: key},
	}
	_, err := s.client.CoreV1().Secrets(secret.Namespace).Create(ctx, secret, metav1.CreateOptions{})
	return ignore(err, apierrors.IsAlreadyExists)
}

func (s *Server) ensureClusterInfo(ctx context.Context) error {
	info := cluster.Info{
		ID: s.cfg.Authority.ClusterID(), PodCIDR: s.cfg.PodCIDR.String(),
		ServiceCIDR: s.cfg.ServiceCIDR.String(), Domain: s.cfg.ClusterDomain,
	}
	want := info.ConfigMap()
	have, err := s.client.CoreV1().ConfigMaps(want.Namespace).Get(ctx, want.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = s.client.CoreV1().ConfigMaps(want.Namespace).Create(ctx, want, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	if before := cluster.FromConfigMap(have); before != info {
		return fmt.Errorf("%w: it was made with pod CIDR %s, service CIDR %s and domain %s, not %s, %s and %s: set cluster-cidr, service-cidr and cluster-domain back", errOtherRanges, before.PodCIDR, before.ServiceCIDR, before.Domain, info.PodCIDR, info.ServiceCIDR, info.Domain)
	}
	return nil
}

// ensurePriorityClasses makes Kubernetes' two: system-node-critical and
// system-cluster-critical.
func (s *Server) ensurePriorityClasses(ctx context.Context) error {
	for _, class := range schedulingapiv1.SystemPriorityClasses() {
		_, err := s.client.SchedulingV1().PriorityClasses().Create(ctx, class, metav1.CreateOptions{})
		if ignore(err, apierrors.IsAlreadyExists) != nil {
			return err
		}
	}
	return nil
}
