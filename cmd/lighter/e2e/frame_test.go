package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const hosts = 3

// clusterName is the shared cluster's; LIGHTER_E2E_NAME lets two runs live side
// by side.
var clusterName = cmp.Or(os.Getenv("LIGHTER_E2E_NAME"), "e2e")

// shared is the cluster of this run.
var shared struct {
	binary, kubeconfig string
	skip               string // why there is none
}

func TestMain(m *testing.M) {
	flag.Parse()
	// Tests wait far more than they compute.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	// Who was started in the background may be told to ignore Ctrl-C, and hands that
	// down; commands that tests interrupt have to feel it.
	if signal.Ignored(os.Interrupt) {
		signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	}
	code, err := withCluster(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func withCluster(run func() int) (code int, err error) {
	switch {
	case os.Getenv("LIGHTER_E2E") == "":
		shared.skip = "end-to-end tests make a cluster on this machine: set LIGHTER_E2E=1 (make e2e does)"
	case os.Geteuid() != 0:
		shared.skip = "needs root: hosts are namespaces"
	}
	if shared.skip != "" {
		return run(), nil
	}
	if shared.binary, err = filepath.Abs("../../../bin/lighter"); err != nil {
		return 1, err
	}
	if _, err := os.Stat(shared.binary); err != nil {
		return 1, fmt.Errorf("%w: make build makes it", err)
	}
	// A link of our own: a build beside this run does not change what is tested.
	private := shared.binary + "-" + clusterName
	_ = os.Remove(private)
	if err := os.Link(shared.binary, private); err != nil {
		return 1, err
	}
	defer os.Remove(private)
	shared.binary = private
	keep := os.Getenv("LIGHTER_E2E_KEEP") != ""
	if !keep {
		// A run that was killed may have left one.
		if err := local("down"); err != nil {
			return 1, err
		}
		defer func() { err = errors.Join(err, local("down")) }()
	}
	settings, err := prepareRegistry()
	defer stopRegistry(keep)
	if err != nil {
		return 1, err
	}
	start := time.Now()
	if err := local("up", "--hosts", fmt.Sprint(hosts), "--config", settings); err != nil {
		return 1, err
	}
	fmt.Fprintf(os.Stderr, "e2e: %d hosts Ready after %.1f s\n", hosts, time.Since(start).Seconds())
	path, err := output("local", "--name", clusterName, "kubeconfig", "--path")
	if err != nil {
		return 1, err
	}
	shared.kubeconfig = strings.TrimSpace(path)
	return run(), nil
}

// local runs "lighter local" on the shared cluster.
func local(args ...string) error {
	cmd := exec.Command(shared.binary, append([]string{"local", "--name", clusterName}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("lighter local %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return nil
}

// output runs lighter against the shared cluster and returns all it prints.
func output(args ...string) (string, error) {
	cmd := exec.Command(shared.binary, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+shared.kubeconfig)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// needCluster skips where there is no cluster, with the reason.
func needCluster(t *testing.T) {
	t.Helper()
	if shared.skip != "" {
		t.Skip(shared.skip)
	}
}

// lighter runs a command that has to succeed.
func lighter(t *testing.T, args ...string) string {
	t.Helper()
	out, err := output(args...)
	if err != nil {
		t.Fatalf("lighter %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// lighterFails runs a command that has to fail and returns what it says.
func lighterFails(t *testing.T, args ...string) string {
	t.Helper()
	out, err := output(args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("lighter %s: %v, want a failure\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// hostExec runs a command on a host, host-1 to host-3.
func hostExec(t *testing.T, host string, argv ...string) string {
	t.Helper()
	return lighter(t, append([]string{"local", "--name", clusterName, "exec", host, "--"}, argv...)...)
}

// tryOnHost runs a command on a host that may fail, as those that eventually repeats.
func tryOnHost(host string, argv ...string) (string, error) {
	out, err := output(append([]string{"local", "--name", clusterName, "exec", host, "--"}, argv...)...)
	if err != nil {
		err = fmt.Errorf("%s on %s: %w: %s", strings.Join(argv, " "), host, err, out)
	}
	return out, err
}

// onCluster runs "lighter local", e.g. onCluster(t, "kill", "host-2").
func onCluster(t *testing.T, args ...string) {
	t.Helper()
	if err := local(args...); err != nil {
		t.Fatal(err)
	}
}

// client talks to the shared cluster as its admin.
func client(t *testing.T) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", shared.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dynamicClient talks about kinds that client-go does not know.
func dynamicClient(t *testing.T) dynamic.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", shared.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// namespace makes one for the test, and removes it with all in it.
func namespace(t *testing.T) string {
	t.Helper()
	needCluster(t)
	api := client(t).CoreV1().Namespaces()
	made, err := api.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			explain(t, made.Name)
		}
		if os.Getenv("LIGHTER_E2E_KEEP") != "" && t.Failed() {
			return
		}
		ctx := context.Background()
		if err := api.Delete(ctx, made.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		// A shell that is process 1 ignores SIGTERM: do not wait 30 s for each.
		grace := int64(1)
		if err := client(t).CoreV1().Pods(made.Name).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &grace}, metav1.ListOptions{}); err != nil {
			t.Error(err)
		}
		eventually(t, time.Minute, "the namespace is gone", func() error {
			_, err := api.Get(ctx, made.Name, metav1.GetOptions{})
			switch {
			case apierrors.IsNotFound(err):
				return nil
			case err == nil:
				return errors.New("it is still there")
			}
			return err
		})
	})
	return made.Name
}

// explain shows what a person would look at after a failure.
func explain(t *testing.T, namespace string) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "nodes", "-o", "wide"},
		{"get", "pods,deployments,replicasets,services,endpointslices,images", "-n", namespace, "-o", "wide"},
		{"events", "-n", namespace},
	} {
		out, _ := output(args...)
		t.Logf("lighter %s:\n%s", strings.Join(args, " "), out)
	}
}

// slack is how many times longer than on a quiet machine something may take.
const slack = 3

// eventually tries until check returns nil; it fails with the last error. timeout is
// what should be enough on a quiet machine.
func eventually(t *testing.T, timeout time.Duration, what string, check func() error) {
	t.Helper()
	start := time.Now()
	deadline := start.Add(slack * timeout)
	for {
		err := check()
		if err == nil {
			if took := time.Since(start); took > 3*time.Second {
				t.Logf("%s after %.1f s", what, took.Seconds())
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s: %v", slack*timeout, what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// get fetches a page and wants status 200.
func get(url string) (string, error) {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, response.Status)
	}
	return string(body), err
}

// readyPods lists the pods with a label that are Ready and not on their way out.
func readyPods(t *testing.T, namespace, selector string) []corev1.Pod {
	t.Helper()
	pods, err := client(t).CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	var ready []corev1.Pod
	for _, pod := range pods.Items {
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil {
				ready = append(ready, pod)
			}
		}
	}
	return ready
}

// nodeIPs are the hosts' addresses.
func nodeIPs(t *testing.T) []string {
	t.Helper()
	nodes, err := client(t).CoreV1().Nodes().List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var ips []string
	for _, node := range nodes.Items {
		for _, address := range node.Status.Addresses {
			if address.Type == corev1.NodeInternalIP {
				ips = append(ips, address.Address)
			}
		}
	}
	return ips
}
