package apiserver

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"lighter.dev/lighter/api/cluster"
	"lighter.dev/lighter/api/v1alpha1"
)

// bootstrap makes the objects that every cluster has. It is safe to repeat:
// roles are brought up to date, keys are never replaced.
func (s *Server) bootstrap(ctx context.Context) error {
	const retry = 50 * time.Millisecond
	var last error
	err := wait.PollUntilContextTimeout(ctx, retry, time.Minute, true, func(ctx context.Context) (bool, error) {
		last = s.bootstrapOnce(ctx)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("make the cluster's own objects: %w", last)
	}
	return nil
}

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
	for _, role := range clusterRoles() {
		if err := s.ensureClusterRole(ctx, role); err != nil {
			return err
		}
	}
	return s.ensureSystemRole(ctx)
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
		return fmt.Errorf("this cluster was made with pod CIDR %s, service CIDR %s and domain %s, which cannot be changed to %s, %s and %s: set cluster-cidr, service-cidr and cluster-domain back", before.PodCIDR, before.ServiceCIDR, before.Domain, info.PodCIDR, info.ServiceCIDR, info.Domain)
	}
	return nil
}

// boundRole is a role and the group that has it.
type boundRole struct {
	name  string
	group string
	rules []rbacv1.PolicyRule
}

// clusterRoles are what agents may do beyond the node authoriser's rules, and
// what a host with only a join token may do.
func clusterRoles() []boundRole {
	read := []string{"get", "list", "watch"}
	return []boundRole{
		{name: "lighter:agent", group: "system:nodes", rules: []rbacv1.PolicyRule{
			{APIGroups: []string{v1alpha1.GroupName}, Resources: []string{"images"}, Verbs: read},
			{APIGroups: []string{v1alpha1.GroupName}, Resources: []string{"images/status"}, Verbs: []string{"get", "update", "patch"}},
			{APIGroups: []string{""}, Resources: []string{"nodes", "services", "namespaces"}, Verbs: read},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: read},
			{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "update", "patch"}},
			{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"create", "get", "list", "watch"}},
		}},
		{name: "lighter:bootstrapper", group: "system:bootstrappers:lighter", rules: []rbacv1.PolicyRule{
			{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"create", "get", "list", "watch"}},
		}},
	}
}

func (s *Server) ensureClusterRole(ctx context.Context, want boundRole) error {
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: want.name}, Rules: want.rules}
	roles := s.client.RbacV1().ClusterRoles()
	_, err := roles.Create(ctx, role, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = roles.Update(ctx, role, metav1.UpdateOptions{})
	}
	if err != nil {
		return err
	}
	_, err = s.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: want.name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: want.name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: want.group}},
	}, metav1.CreateOptions{})
	return ignore(err, apierrors.IsAlreadyExists)
}

// ensureSystemRole lets agents read two objects of kube-system, and no others.
func (s *Server) ensureSystemRole(ctx context.Context) error {
	const name = "lighter:agent"
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceSystem},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{cluster.GossipSecret}, Verbs: []string{"get"}},
			{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{cluster.InfoConfigMap}, Verbs: []string{"get"}},
		},
	}
	roles := s.client.RbacV1().Roles(role.Namespace)
	_, err := roles.Create(ctx, role, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = roles.Update(ctx, role, metav1.UpdateOptions{})
	}
	if err != nil {
		return err
	}
	_, err = s.client.RbacV1().RoleBindings(role.Namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: role.Namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:nodes"}},
	}, metav1.CreateOptions{})
	return ignore(err, apierrors.IsAlreadyExists)
}
