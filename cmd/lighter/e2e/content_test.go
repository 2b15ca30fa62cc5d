package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/agentapi"
)

// TestCommit keeps the file system of a container that runs and of one that has
// ended, and runs what it kept with the pod's own command.
func TestCommit(t *testing.T) {
	needCluster(t)
	t.Parallel()
	ns := namespace(t)
	toolbox(t, ns)
	const line = "echo from-$HOSTNAME >> /kept; rm -rf /www; cat /kept"
	create(t, ns, pod("runs", line+"; exec sleep 1d"))
	create(t, ns, pod("ends", line, never))
	until(t, ns, "runs", 60*time.Second, "runs", func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodRunning })
	eventually(t, 30*time.Second, "the file is written", func() error {
		_, err := inPod(t, ns, "runs", "cat /kept && ! ls /www")
		return err
	})
	if phase, out := untilDone(t, ns, "ends"); phase != corev1.PodSucceeded {
		t.Fatalf("pod ends: %s\n%s", phase, out)
	}
	for _, name := range []string{"runs", "ends"} {
		lighter(t, "commit", "-n", ns, name, "kept-"+name+":v1")
		create(t, ns, onImage(pod("look-"+name, "cat /kept; ls -d /www", never), "kept-"+name+":v1"))
		_, out := untilDone(t, ns, "look-"+name)
		if !strings.Contains(out, "from-"+name) || !strings.Contains(out, "No such file") {
			t.Errorf("the committed file system of %s shows\n%s", name, out)
		}
	}
	// Without a command of its own a pod does what the committed container did.
	again := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: again}\nspec:\n  %s\n  containers: [{name: c, image: %q}]\n", never, "kept-ends:v1")
	create(t, ns, again)
	if phase, out := untilDone(t, ns, "again"); phase != corev1.PodSucceeded || !strings.Contains(out, "from-ends\nfrom-again") {
		t.Errorf("the committed image by its own command: %s\n%s", phase, out)
	}
	// The one that was paused for it goes on.
	if _, err := inPod(t, ns, "runs", "true"); err != nil {
		t.Error(err)
	}
}

// onImage makes a pod of pod's use another image.
func onImage(manifest, image string) string {
	return strings.Replace(manifest, "image: toolbox", "image: "+image, 1)
}

// TestDiskUsage: an agent tells what is on its disk, to those who may ask its node.
func TestDiskUsage(t *testing.T) {
	needCluster(t)
	t.Parallel()
	ns := namespace(t)
	toolbox(t, ns)
	node := imageNamed(t, ns, "toolbox").Status.NodeName
	var usage agentapi.Usage
	raw := lighter(t, "get", "--raw", "/api/v1/nodes/"+node+"/proxy"+agentapi.PathUsage)
	if err := json.Unmarshal([]byte(raw), &usage); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	if len(usage.Rows) != 3 || usage.Node != node || usage.Rows[0].Total == 0 || usage.Rows[0].Size == 0 || usage.Rows[2].Total == 0 || usage.Free == 0 {
		t.Errorf("usage: %+v", usage)
	}
	out := lighterFails(t, "get", "--raw", "/api/v1/nodes/"+node+"/proxy"+agentapi.PathInspect+"?ref=none:v1")
	if !strings.Contains(out, "is not on this host") {
		t.Errorf("an image that is not there: %s", out)
	}
}
