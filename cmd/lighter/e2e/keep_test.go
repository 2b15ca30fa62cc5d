package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"lighter.dev/lighter/api/v1alpha1"
)

// imageNamed reads an Image object.
func imageNamed(t *testing.T, ns, name string) v1alpha1.Image {
	t.Helper()
	object, err := dynamicClient(t).Resource(v1alpha1.SchemeGroupVersion.WithResource("images")).Namespace(ns).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var img v1alpha1.Image
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &img); err != nil {
		t.Fatal(err)
	}
	return img
}

// holders are the nodes that say that they hold a digest.
func holders(t *testing.T, dgst string) []string {
	t.Helper()
	nodes, err := client(t).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, node := range nodes.Items {
		for _, held := range node.Status.Images {
			if slices.ContainsFunc(held.Names, func(name string) bool { return strings.HasSuffix(name, "@"+dgst) }) {
				found = append(found, node.Name)
				break
			}
		}
	}
	return found
}

// TestImagesAreKept: what one host built, a second holds within seconds, though no
// pod runs there, and it outlives its builder. When the Image is deleted, all of it
// goes from every disk.
func TestImagesAreKept(t *testing.T) {
	ns := namespace(t)
	mend(t)
	// A power loss of the server's host would end more than this is about.
	lighter(t, "cordon", "host-1")
	t.Cleanup(func() { lighter(t, "uncordon", "host-1") })
	toolbox(t, ns)
	img := imageNamed(t, ns, "toolbox")
	builder := img.Status.NodeName
	if img.Status.Digest == "" || builder == "host-1" {
		t.Fatalf("built %q on %q", img.Status.Digest, builder)
	}
	eventually(t, 30*time.Second, "a second host holds the image", func() error {
		if got := holders(t, img.Status.Digest); len(got) != 2 || !slices.Contains(got, builder) {
			return fmt.Errorf("%v do, built on %s", got, builder)
		}
		return nil
	})

	onCluster(t, "kill", builder)
	eventually(t, 60*time.Second, "two of the hosts that are left hold it", func() error {
		got := slices.DeleteFunc(holders(t, img.Status.Digest), func(host string) bool { return host == builder })
		if len(got) != 2 {
			return fmt.Errorf("%v do, %s is off", got, builder)
		}
		return nil
	})
	lighter(t, "uncordon", "host-1")
	var names []string
	for _, host := range everyHost {
		if host != builder {
			name := "on-" + host
			names = append(names, "pod/"+name)
			applyText(t, ns, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  nodeName: %s\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {name: main, image: toolbox}\n", name, host))
		}
	}
	lighter(t, append([]string{"wait", "-n", ns, "--for=condition=Ready", "--timeout=180s"}, names...)...)
	onCluster(t, "start", builder)
	nodesReady(t, 30*time.Second, everyHost...)

	lighter(t, append([]string{"delete", "-n", ns, "--wait=true"}, names...)...)
	lighter(t, "delete", "-n", ns, "image", "toolbox")
	eventually(t, 2*time.Minute, "nobody holds it any more", func() error {
		if got := holders(t, img.Status.Digest); len(got) > 0 {
			return fmt.Errorf("%v do", got)
		}
		return nil
	})
	blob := "/var/lib/lighter/agent/images/content/blobs/sha256/" + strings.TrimPrefix(img.Status.Digest, "sha256:")
	for _, host := range everyHost {
		if host == builder {
			continue // its build cache may want parts of it
		}
		eventually(t, time.Minute, "its content is gone from the disk of "+host, func() error {
			_, err := tryOnHost(host, "busybox", "test", "!", "-e", blob)
			return err
		})
	}
}

// applyText applies a manifest.
func applyText(t *testing.T, ns, manifest string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	lighter(t, "apply", "-n", ns, "-f", path)
}
