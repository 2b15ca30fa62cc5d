package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// tenant is a tool whose user has nothing but a role in a namespace.
func tenant(t *testing.T, ns, role string) tenantTool {
	t.Helper()
	kube := client(t)
	account, err := kube.CoreV1().ServiceAccounts(ns).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: role}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = kube.RbacV1().RoleBindings(ns).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: account.Name}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := kube.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), account.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.LoadFromFile(shared.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for user := range config.AuthInfos {
		config.AuthInfos[user] = &api.AuthInfo{Token: token.Status.Token}
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return tenantTool{t, path, ns}
}

type tenantTool struct {
	t              *testing.T
	kubeconfig, ns string
}

// try runs a verb in a namespace as the tenant.
func (k tenantTool) try(ns string, args ...string) result {
	k.t.Helper()
	line := append([]string{args[0], "-n", ns, "--kubeconfig", k.kubeconfig}, args[1:]...)
	return tool{"lighter", shared.binary}.try(k.t, "", line...)
}

// do runs a verb that has to succeed, and returns what it printed, trimmed.
func (k tenantTool) do(args ...string) string {
	k.t.Helper()
	r := k.try(k.ns, args...)
	if r.code != 0 {
		k.t.Fatalf("lighter %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return strings.TrimSpace(r.out)
}

// TestDockerVerbsOfATenant: who may edit one namespace has all verbs on its
// containers, who may view it those that only look, and neither has any elsewhere.
func TestDockerVerbsOfATenant(t *testing.T) {
	t.Parallel()
	d, elsewhere := newDock(t), newDock(t)
	elsewhere.do("run", "-d", "--name", "web", "toolbox")
	editor, viewer := tenant(t, d.ns, "edit"), tenant(t, d.ns, "view")
	eventually(t, 30*time.Second, "the roles count", func() error {
		for _, k := range []tenantTool{editor, viewer} {
			if r := k.try(d.ns, "ps"); r.code != 0 {
				return fmt.Errorf("%+v", r)
			}
		}
		return nil
	})
	editor.do("run", "-d", "--name", "web", "-p", "80", "-v", "store:/data", "toolbox", "sh", "-c", "trap 'echo told' USR1; touch /new; while true; do sleep 0.1; done")
	for name, k := range map[string]tenantTool{"editor": editor, "viewer": viewer} {
		eventually(t, 20*time.Second, name+" sees the processes", func() error {
			if list := k.do("top", "web"); !strings.Contains(list, "PID") || !strings.Contains(list, "sleep 0.1") {
				return errOutput(list)
			}
			return nil
		})
		eventually(t, 20*time.Second, name+" sees the change", func() error {
			if got := k.do("diff", "web"); got != "A /new" {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
		contains(t, name+": stats", k.do("stats", "--no-stream"), "web", "CPU %")
		for _, verb := range [][]string{{"top", "web"}, {"diff", "web"}, {"stats", "--no-stream", "web"}, {"kill", "web"}} {
			if r := k.try(elsewhere.ns, verb...); r.code == 0 || !strings.Contains(r.err, "forbidden") {
				t.Errorf("%s, in another namespace: %v: %+v", name, verb, r)
			}
		}
	}
	if r := viewer.try(d.ns, "kill", "-s", "USR1", "web"); r.code == 0 || !strings.Contains(r.err, "forbidden") {
		t.Errorf("who may only look kills: %+v", r)
	}
	editor.do("kill", "-s", "USR1", "web")
	eventually(t, 20*time.Second, "it was told", func() error {
		if log := editor.do("logs", "web"); !strings.Contains(log, "told") {
			return fmt.Errorf("its log is %q", log)
		}
		return nil
	})
	editor.do("commit", "-q", "web", "kept")
	editor.do("exec", "web", "--", "true")
	editor.do("restart", "-t", "0", "web")
	editor.do("stop", "-t", "0", "web")
	editor.do("rm", "web")
	host := editor.do("get", "configmap", "lighter-volumes", "-o", "jsonpath={.data.store}")
	hostExec(t, host, "rmdir", "/var/lib/lighter/named-volumes/"+d.ns+"/store", "/var/lib/lighter/named-volumes/"+d.ns)
}
