package apiserver

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"

	"lighter.dev/lighter/api/cluster"
	"lighter.dev/lighter/api/v1alpha1"
)

const (
	agentRole        = "lighter:agent"
	bootstrapperRole = "lighter:bootstrapper"
	nodesGroup       = "system:nodes"
	bootstrappers    = "system:bootstrappers:lighter"

	// policyWriters write at a time: etcd commits what comes together at once.
	policyWriters = 16
)

// policy is the RBAC that every cluster has: Kubernetes' own and ours.
type policy struct {
	clusterRoles    []rbacv1.ClusterRole
	clusterBindings []rbacv1.ClusterRoleBinding
	roles           map[string][]rbacv1.Role
	bindings        map[string][]rbacv1.RoleBinding
}

func defaultPolicy() policy {
	p := policy{
		clusterRoles:    append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...),
		clusterBindings: append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...),
		roles:           bootstrappolicy.NamespaceRoles(),
		bindings:        bootstrappolicy.NamespaceRoleBindings(),
	}
	p.addAgents()
	p.addOwn()
	p.addServers()
	return p
}

func rule(verbs []string, group string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}
}

var (
	read     = []string{"get", "list", "watch"}
	write    = []string{"create", "update", "patch", "delete", "deletecollection"}
	announce = []string{"create", "update", "patch"}
	submit   = []string{"create", "get", "list", "watch"}
)

// addAgents says what agents may do beyond the node authoriser's rules, and what
// a host with only a join token may do.
func (p *policy) addAgents() {
	const certificates = "certificates.k8s.io"
	p.grant(agentRole, nodesGroup,
		rule(read, v1alpha1.GroupName, "images"),
		rule([]string{"get", "update", "patch"}, v1alpha1.GroupName, "images/status"),
		rule(read, corev1.GroupName, "nodes", "services", "namespaces"),
		rule(read, "discovery.k8s.io", "endpointslices"),
		rule(announce, corev1.GroupName, "events"),
		rule(announce, "events.k8s.io", "events"),
		rule(submit, certificates, "certificatesigningrequests"),
	)
	p.grant(bootstrapperRole, bootstrappers, rule(submit, certificates, "certificatesigningrequests"))

	gossip := rule([]string{"get"}, corev1.GroupName, "secrets")
	gossip.ResourceNames = []string{cluster.GossipSecret}
	info := rule([]string{"get"}, corev1.GroupName, "configmaps")
	info.ResourceNames = []string{cluster.InfoConfigMap}
	here := metav1.ObjectMeta{Name: agentRole, Namespace: metav1.NamespaceSystem}
	p.roles[here.Namespace] = append(p.roles[here.Namespace], rbacv1.Role{ObjectMeta: here, Rules: []rbacv1.PolicyRule{gossip, info}})
	p.bindings[here.Namespace] = append(p.bindings[here.Namespace], rbacv1.RoleBinding{
		ObjectMeta: here, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: agentRole}, Subjects: groupSubject(nodesGroup),
	})
}

// addOwn makes our group part of the roles view, edit and admin.
func (p *policy) addOwn() {
	part := func(name, of string, rules ...rbacv1.PolicyRule) {
		p.clusterRoles = append(p.clusterRoles, rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-" + of: "true"}},
			Rules:      rules,
		})
	}
	get, create := []string{"get"}, []string{"create"}
	part("lighter:images-view", "view",
		rule(read, v1alpha1.GroupName, "images"), rule(get, v1alpha1.GroupName, "images/details"))
	part("lighter:images-edit", "edit",
		rule(write, v1alpha1.GroupName, "images"), rule(get, v1alpha1.GroupName, "images/content"),
		// images/commit takes the right to create pods/exec besides.
		rule(create, v1alpha1.GroupName, "images/build", "images/content", "images/push", "images/commit"))
	// What a container runs and uses is no secret to those who may see its pod.
	part("lighter:containers-view", "view", rule(get, v1alpha1.GroupName, "containers/top", "containers/changes", "containers/stats"))
	part("lighter:containers-edit", "edit", rule(create, v1alpha1.GroupName, "containers/signal"))
}

// grant makes a cluster role and gives it to a group.
func (p *policy) grant(name, group string, rules ...rbacv1.PolicyRule) {
	meta := metav1.ObjectMeta{Name: name}
	p.clusterRoles = append(p.clusterRoles, rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules})
	p.clusterBindings = append(p.clusterBindings, rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}, Subjects: groupSubject(group),
	})
}

func groupSubject(name string) []rbacv1.Subject {
	return []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name}}
}

// ensurePolicy brings the roles up to date. As in Kubernetes, what admins added
// stays. Upstream's own start-up hook does the same, but one object at a time
// and only after a second.
func (s *Server) ensurePolicy(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(policyWriters)
	p, client := defaultPolicy(), s.client.RbacV1()
	role := func(owner reconciliation.RuleOwner, access reconciliation.RuleOwnerModifier) {
		ensure(ctx, group, "role "+owner.GetName(), func() error {
			_, err := (&reconciliation.ReconcileRoleOptions{Role: owner, Client: access, Confirm: true}).Run()
			return err
		})
	}
	bind := func(binding reconciliation.RoleBinding, access reconciliation.RoleBindingModifier) {
		ensure(ctx, group, "role binding "+binding.GetName(), func() error {
			_, err := (&reconciliation.ReconcileRoleBindingOptions{RoleBinding: binding, Client: access, Confirm: true}).Run()
			return err
		})
	}
	for i := range p.clusterRoles {
		role(reconciliation.ClusterRoleRuleOwner{ClusterRole: &p.clusterRoles[i]}, reconciliation.ClusterRoleModifier{Client: client.ClusterRoles()})
	}
	for i := range p.clusterBindings {
		bind(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &p.clusterBindings[i]}, reconciliation.ClusterRoleBindingClientAdapter{Client: client.ClusterRoleBindings()})
	}
	for _, roles := range p.roles {
		for i := range roles {
			role(reconciliation.RoleRuleOwner{Role: &roles[i]}, reconciliation.RoleModifier{Client: client, NamespaceClient: s.client.CoreV1().Namespaces()})
		}
	}
	for _, bindings := range p.bindings {
		for i := range bindings {
			bind(reconciliation.RoleBindingAdapter{RoleBinding: &bindings[i]}, reconciliation.RoleBindingClientAdapter{Client: client, NamespaceClient: s.client.CoreV1().Namespaces()})
		}
	}
	return group.Wait()
}

// ensure runs one write among others, unless one of them has failed.
func ensure(ctx context.Context, group *errgroup.Group, what string, write func() error) {
	group.Go(func() error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := write(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	})
}
