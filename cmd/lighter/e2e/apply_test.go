package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestBadManifests: each mistake is named with file and field, and nothing of
// the manifest is applied.
func TestBadManifests(t *testing.T) {
	const good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n---\n"
	tests := []struct{ name, manifest, want string }{
		{"unknown field", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {contaners: []}", "contaners"},
		{"wrong type", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: many}", "replicas"},
		{"missing field", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {}", "spec.ports"},
		{"unknown kind", "apiVersion: v1\nkind: Podd\nmetadata: {name: p}", "Podd"},
		{"key twice", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: x, a: y}", `"a" already set`},
		{"no such folder", "apiVersion: lighter.dev/v1alpha1\nkind: Image\nmetadata: {name: i}\nspec: {source: {path: nowhere}}", "spec.source.path"},
		{"no name", "apiVersion: v1\nkind: ConfigMap\nmetadata: {}", "metadata.name"},
		{"same object twice", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}", "also defined in"},
	}
	ns := namespace(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad.yaml")
			if err := os.WriteFile(path, []byte(good+test.manifest), 0o600); err != nil {
				t.Fatal(err)
			}
			out := lighterFails(t, "apply", "-n", ns, "-f", path)
			if !strings.Contains(out, test.want) || !strings.Contains(out, "bad.yaml") {
				t.Errorf("want %q and the file's name in:\n%s", test.want, out)
			}
			if _, err := client(t).CoreV1().ConfigMaps(ns).Get(t.Context(), "good", metav1.GetOptions{}); err == nil {
				t.Error("half of the manifest was applied")
			}
		})
	}
}

// TestApplyAfterBuild: a manifest takes over an Image that a verb has made, whatever
// the verb has set; what somebody else has set is a conflict.
func TestApplyAfterBuild(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	ns, dir := d.ns, t.TempDir()
	write := func(source string) string {
		t.Helper()
		writeFiles(t, dir, map[string]string{
			"image.yaml":     "apiVersion: lighter.dev/v1alpha1\nkind: Image\nmetadata: {name: shop}\nspec:\n  source: " + source + "\n",
			"src/Dockerfile": "FROM toolbox\nCMD [\"echo\", \"by path\"]\n",
		})
		return filepath.Join(dir, "image.yaml")
	}
	apply := func(source, want string) {
		t.Helper()
		lighter(t, "apply", "-n", ns, "-f", write(source))
		d.prints(want, "run", "--rm", "shop")
	}
	manifest := write("{path: ./src}")
	lighter(t, "build", "-n", ns, "-q", "-t", "shop", filepath.Join(dir, "src"))
	lighter(t, "apply", "-n", ns, "-f", manifest, "--dry-run=server")
	apply("{path: ./src}", "by path")
	lighter(t, "build", "-n", ns, "-q", "-t", "shop", "--build-arg", "UNUSED=1", filepath.Join(dir, "src"))
	apply(`{inline: "FROM toolbox\nCMD [\"echo\", \"inline\"]\n"}`, "inline")
	lighter(t, "rmi", "-n", ns, "shop")
	lighter(t, "tag", "-n", ns, "toolbox", "shop")
	apply("{path: ./src}", "by path")
	if spec := d.do("get", "image", "shop", "-o", "jsonpath={.spec}"); strings.Contains(spec, "UNUSED") || strings.Contains(spec, `"image"`) {
		t.Errorf("left of what the verbs had set: %s", spec)
	}
	lighter(t, "patch", "image", "-n", ns, "shop", "--type=merge", "--field-manager=somebody", "-p", `{"spec":{"source":{"path":"/else/where"}}}`)
	out := lighterFails(t, "apply", "-n", ns, "-f", manifest)
	contains(t, "a conflict", out, "nothing was applied", "somebody", ".spec.source.path", "--force-conflicts")
	lighter(t, "apply", "-n", ns, "-f", manifest, "--force-conflicts")
}
