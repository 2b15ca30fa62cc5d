package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestDockerLogin: a password is kept only if the registry takes it.
func TestDockerLogin(t *testing.T) {
	host := needRegistry(t)
	t.Parallel()
	ann := newPerson(t)
	file := filepath.Join(ann.dir, "config.json")
	r := ann.login(t, "wrong")
	contains(t, "login with a wrong password", r.out+r.err, "refused the user name or password")
	if _, err := os.Stat(file); r.code == 0 || err == nil {
		t.Errorf("exit code %d, and the file is there: %t", r.code, err == nil)
	}
	ann.fails(t, []string{"login", "-u", registryUser, "-p", registryPassword, host}, "--ca-file")
	if r := ann.login(t, registryPassword); r.code != 0 || !strings.Contains(r.out, "Login Succeeded") {
		t.Fatalf("login: exit code %d\n%s%s", r.code, r.out, r.err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("configuration file: %v, %v", info.Mode(), err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "configuration", string(content), `"auths"`, host)
}

func TestDockerLogout(t *testing.T) {
	host := needRegistry(t)
	t.Parallel()
	ann := newPerson(t)
	if r := ann.login(t, registryPassword); r.code != 0 {
		t.Fatal(r.err)
	}
	contains(t, "logout", ann.run(t, "logout", host), "Removing login credentials for "+host)
	content, err := os.ReadFile(filepath.Join(ann.dir, "config.json"))
	if err != nil || strings.Contains(string(content), host) {
		t.Errorf("after logout: %s, %v", content, err)
	}
	contains(t, "second logout", ann.run(t, "logout", host), "Not logged in")
}

// TestDockerCredentialHelper: login, push and logout keep the password in the program
// that Docker's configuration names.
func TestDockerCredentialHelper(t *testing.T) {
	host := needRegistry(t)
	t.Parallel()
	ns := namespace(t)
	box(t, ns)
	ann := newPerson(t)
	kept := filepath.Join(ann.dir, "kept")
	helper := "#!/bin/sh\ncase $1 in\nstore) cat > " + kept + ";;\nget) cat " + kept + " 2>/dev/null || { echo credentials not found in native keychain; exit 1; };;\nerase) rm -f " + kept + ";;\nesac\n"
	if err := os.WriteFile(filepath.Join(ann.dir, "docker-credential-e2e"), []byte(helper), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	config := filepath.Join(ann.dir, "config.json")
	if err := os.WriteFile(config, []byte(`{"credsStore":"e2e"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ann.env = []string{"PATH=" + ann.dir + ":" + os.Getenv("PATH")}
	name := host + "/" + ns + "/helped:v1"
	ann.run(t, "tag", "-n", ns, "box:v1", name)
	ann.fails(t, []string{"push", "-n", ns, name}, "wants credentials")
	if r := ann.login(t, registryPassword); r.code != 0 {
		t.Fatal(r.err)
	}
	content, err := os.ReadFile(config)
	if err != nil || strings.Contains(string(content), `"auth"`) {
		t.Errorf("the configuration has the password: %s, %v", content, err)
	}
	contains(t, "push", ann.run(t, "push", "-n", ns, name), "v1: digest: sha256:")
	contains(t, "logout", ann.run(t, "logout", host), "Removing login credentials for "+host)
	if _, err := os.Stat(kept); err == nil {
		t.Error("the helper still has the password")
	}
}

// pushed pushes an image of a namespace to the registry, as ann, who is logged in.
func pushed(t *testing.T, host, ns string) (ann person, name string) {
	t.Helper()
	box(t, ns)
	ann, name = newPerson(t), host+"/"+ns+"/box:v1"
	ann.run(t, "tag", "-n", ns, "box:v1", name)
	if r := ann.login(t, registryPassword); r.code != 0 {
		t.Fatal(r.err)
	}
	out := ann.run(t, "push", "-n", ns, name)
	contains(t, "push", out, "The push refers to repository ["+host+"/"+ns+"/box]", "v1: digest: sha256:", "Pushed")
	return ann, name
}

// TestDockerPush: tag and push an image as with Docker.
func TestDockerPush(t *testing.T) {
	host := needRegistry(t)
	t.Parallel()
	ns := namespace(t)
	stranger, missing := newPerson(t), host+"/"+ns+"/none:v1"
	ann, name := pushed(t, host, ns)
	ann.fails(t, []string{"push", "-n", ns, missing}, "no such image", "lighter images")
	ann.fails(t, []string{"push", "-n", ns, host + "/" + ns + "/box:v2"}, "no such image", "near it: ", "box:v1")
	stranger.fails(t, []string{"push", "-n", ns, name}, "wants credentials")
	contains(t, "second push", ann.run(t, "push", "-n", ns, name), "Layer already exists", "v1: digest: sha256:")
}

// TestDockerPull: pull an image to all hosts or to one, use it, push and remove it,
// as with Docker.
func TestDockerPull(t *testing.T) {
	host := needRegistry(t)
	t.Parallel()
	ns := namespace(t)
	ann, name := pushed(t, host, ns)
	digest := digestOfTag(t, ns, name)
	contains(t, "rmi", ann.run(t, "rmi", "-n", ns, name), "Untagged: "+name)

	newPerson(t).fails(t, []string{"pull", "-n", ns, name}, "wants credentials")
	ann.fails(t, []string{"pull", "-n", ns, strings.TrimSuffix(name, "v1") + "v2"}, "v2", "not")
	out := ann.run(t, "pull", "-n", ns, name)
	contains(t, "pull", out, "host-1: ", "host-2: Pull complete", "host-3: ", "Digest: "+digest, name)
	out = ann.run(t, "images", "-n", ns, name, "--format", "{{.Repository}} {{.Tag}} {{.Hosts}}")
	contains(t, "images", out, host+"/"+ns+"/box v1 [host-1 host-2 host-3]")
	out = ann.run(t, "pull", "-n", ns, "--node", "host-2", "-q", name)
	if strings.TrimSpace(out) != name {
		t.Errorf("quiet pull says %q", out)
	}
	if out := runsAs(t, ns, "pulled", name, "echo runs"); out != "runs" {
		t.Errorf("the pod prints %q", out)
	}
	lighter(t, "delete", "pod", "-n", ns, "pulled")
	contains(t, "push of a pulled image", ann.run(t, "push", "-n", ns, name), "digest: "+digest)
	create(t, ns, "apiVersion: v1\nkind: Pod\nmetadata: {name: user}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: \""+name+"\", imagePullPolicy: IfNotPresent}]}\n")
	untilReady(t, ns, "user")
	ann.fails(t, []string{"rmi", "-n", ns, name}, "running pods use it: user", "-f")
	contains(t, "rmi of a pulled image that is in use, by force", ann.run(t, "rmi", "-n", ns, "-f", name), "Untagged: "+name)
	lighter(t, "delete", "pod", "-n", ns, "user")
	ann.run(t, "pull", "-n", ns, name)
	contains(t, "rmi of a pulled image", ann.run(t, "rmi", "-n", ns, name), "Untagged: "+name)
	if out := ann.run(t, "images", "-n", ns, "-q", name); strings.TrimSpace(out) != "" {
		t.Errorf("after rmi there is still %s", out)
	}
}

// TestDockerPullSecret: pods pull with what login has left for them.
func TestDockerPullSecret(t *testing.T) {
	host := needRegistry(t)
	t.Parallel()
	source, ns := namespace(t), namespace(t)
	box(t, source)
	ann := newPerson(t)
	if r := ann.login(t, registryPassword); r.code != 0 {
		t.Fatal(r.err)
	}
	name := host + "/" + source + "/private:v1"
	ann.run(t, "tag", "-n", source, "box:v1", name)
	ann.run(t, "push", "-n", source, name)
	deployment := `apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: 2
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: %[2]q}]
`
	create(t, ns, fmt.Sprintf(deployment, "before", name))
	eventually(t, 30*time.Second, "a pod without the secret cannot pull", func() error {
		pods, err := client(t).CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{LabelSelector: "app=before"})
		if err != nil {
			return err
		}
		for _, pod := range pods.Items {
			for _, status := range pod.Status.ContainerStatuses {
				if waiting := status.State.Waiting; waiting != nil && strings.Contains(waiting.Message, "wants credentials") {
					return nil
				}
			}
		}
		return fmt.Errorf("%d pods", len(pods.Items))
	})
	r := ann.login(t, registryPassword, "-n", ns, "--pull-secret=private")
	if r.code != 0 {
		t.Fatal(r.err)
	}
	contains(t, "login", r.out, "Pods in namespace "+ns+" pull from "+host+" with secret private")
	secret, err := client(t).CoreV1().Secrets(ns).Get(t.Context(), "private", metav1.GetOptions{})
	if err != nil || secret.Type != corev1.SecretTypeDockerConfigJson {
		t.Errorf("secret: %v, %v", secret.Type, err)
	}
	create(t, ns, fmt.Sprintf(deployment, "after", name))
	eventually(t, 40*time.Second, "pods with the secret run", func() error {
		if n := len(readyPods(t, ns, "app=after")); n != 2 {
			return fmt.Errorf("%d are Ready", n)
		}
		return nil
	})
	// An image that pods use is removed by force alone.
	ann.fails(t, []string{"rmi", "-n", ns, name}, "running pods use it", "-f")
}

// TestDockerRunPrivate: "lighter run" gives its container the user's login, in a
// secret that goes when the container goes.
func TestDockerRunPrivate(t *testing.T) {
	host := needRegistry(t)
	t.Parallel()
	source, ns := namespace(t), namespace(t)
	box(t, source)
	ann, stranger := newPerson(t), newPerson(t)
	if r := ann.login(t, registryPassword); r.code != 0 {
		t.Fatal(r.err)
	}
	name := host + "/" + source + "/private:run"
	ann.run(t, "tag", "-n", source, "box:v1", name)
	ann.run(t, "push", "-n", source, name)
	stranger.fails(t, []string{"run", "-n", ns, "--name", "refused", name}, "ErrImagePull", "wants credentials")
	secrets := func() []corev1.Secret {
		t.Helper()
		list, err := client(t).CoreV1().Secrets(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return list.Items
	}
	if left := secrets(); len(left) != 0 {
		t.Errorf("who has no login leaves %d secrets", len(left))
	}
	ann.run(t, "run", "-n", ns, "-d", "--name", "private", name)
	made := secrets()
	pod := getPod(t, ns, "private")
	if len(made) != 1 || len(pod.Spec.ImagePullSecrets) != 1 || made[0].Name != pod.Spec.ImagePullSecrets[0].Name || made[0].Type != corev1.SecretTypeDockerConfigJson {
		t.Fatalf("%d secrets; the pod names %v", len(made), pod.Spec.ImagePullSecrets)
	}
	ann.run(t, "rm", "-n", ns, "-f", "private")
	eventually(t, 30*time.Second, "the secret is gone, too", func() error {
		if left := secrets(); len(left) != 0 {
			return fmt.Errorf("%d are left", len(left))
		}
		return nil
	})
	// A pod that names a secret which is not there is told so.
	create(t, ns, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: lost}
spec:
  terminationGracePeriodSeconds: 1
  imagePullSecrets: [{name: nosuch}]
  containers: [{name: c, image: %q}]
`, name))
	eventually(t, 30*time.Second, "a warning names the secret", func() error {
		out := lighter(t, "events", "-n", ns, "--for=pod/lost", "--types=Warning")
		if !strings.Contains(out, "FailedToRetrieveImagePullSecret") || !strings.Contains(out, "nosuch") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}
