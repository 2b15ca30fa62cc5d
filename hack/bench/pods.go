package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	namespace = "default"
	imageName = "bench"
	singles   = 30
)

const imageManifest = `apiVersion: lighter.dev/v1alpha1
kind: Image
metadata: {name: ` + imageName + `}
spec: {source: {path: context}}
`

const dockerfile = `FROM scratch
COPY busybox /bin/busybox
STOPSIGNAL SIGKILL
CMD ["/bin/busybox", "sleep", "1000000"]
`

// busybox is where hack/guestbook-base.sh has put a static one.
const busybox = "manifests/guestbook/app/busybox"

// pods prepares a cluster for measurements with pods: their image is built, and
// every host holds it.
func (b *bench) pods(ctx context.Context, hosts int) error {
	if err := b.need(ctx, hosts); err != nil || b.image {
		return err
	}
	dir, err := b.context()
	if err != nil {
		return err
	}
	if _, err := b.lighter(ctx, "apply", "-f", filepath.Join(dir, "image.yaml")); err != nil {
		return err
	}
	w, err := b.watch(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	for _, host := range b.cluster.Hosts {
		if _, err := b.burst(ctx, w, 1, host.Name); err != nil {
			return err
		}
		if err := b.clear(ctx, w); err != nil {
			return err
		}
	}
	b.image = true
	return nil
}

// context makes the folder that the image is built from.
func (b *bench) context() (string, error) {
	dir, err := b.tempDir()
	if err != nil {
		return "", err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return "", fmt.Errorf("%w: make guestbook-base puts it there", err)
	}
	folder := filepath.Join(dir, "context")
	return dir, errors.Join(
		os.Mkdir(folder, 0o755),
		os.WriteFile(filepath.Join(folder, "busybox"), program, 0o755),
		os.WriteFile(filepath.Join(folder, "Dockerfile"), []byte(dockerfile), 0o644),
		os.WriteFile(filepath.Join(dir, "image.yaml"), []byte(imageManifest), 0o644),
	)
}

func podSpec(host string) corev1.PodSpec {
	spec := corev1.PodSpec{
		// Not 0: the API would forget the pod before the host has let it go.
		TerminationGracePeriodSeconds: new(int64(5)),
		Containers:                    []corev1.Container{{Name: "main", Image: imageName, ImagePullPolicy: corev1.PullIfNotPresent}},
	}
	if host != "" {
		spec.NodeSelector = map[string]string{corev1.LabelHostname: host}
	}
	return spec
}

// deployment wants that many pods, on one host if it is named.
func deployment(name string, replicas int, host string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(replicas)),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec(host)},
		},
	}
}

// measurePod creates pods one by one, from the request that makes it to the
// event that says Running.
func measurePod(ctx context.Context, b *bench) error {
	if err := b.pods(ctx, 1); err != nil {
		return err
	}
	w, err := b.watch(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	var took []float64
	for i := range singles {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("single-%d", i)}, Spec: podSpec("")}
		start := time.Now()
		if _, err := b.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return err
		}
		if err := w.until(ctx, "the pod is Running", func() bool { return w.running() == 1 }); err != nil {
			return err
		}
		took = append(took, milliseconds(time.Since(start)))
		if err := b.clear(ctx, w); err != nil {
			return err
		}
	}
	b.results.set(onePod, median(took), "%d pods, one after another, through scheduler and API; p90 %.0f ms", singles, percentile(took, 90))
	return nil
}

// measureBursts creates Deployments on one host.
func measureBursts(ctx context.Context, b *bench) error {
	if err := b.pods(ctx, 1); err != nil {
		return err
	}
	w, err := b.watch(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	for _, size := range []struct {
		id   string
		pods int
	}{{pods50, 50}, {pods100, 100}} {
		var took []float64
		for range runs {
			seconds, err := b.burst(ctx, w, size.pods, "")
			if err != nil {
				return err
			}
			took = append(took, seconds)
			if err := b.clear(ctx, w); err != nil {
				return err
			}
		}
		b.results.set(size.id, median(took), "a Deployment created → all Running; median of %d", runs)
	}
	return nil
}

// burst creates a Deployment and returns the seconds until all its pods run.
func (b *bench) burst(ctx context.Context, w *podWatch, pods int, host string) (float64, error) {
	start := time.Now()
	if _, err := b.client.AppsV1().Deployments(namespace).Create(ctx, deployment("burst", pods, host), metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	err := w.until(ctx, fmt.Sprintf("%d pods are Running", pods), func() bool { return w.running() == pods })
	return time.Since(start).Seconds(), err
}

// clear deletes all Deployments and pods, and waits until they are gone.
func (b *bench) clear(ctx context.Context, w *podWatch) error {
	background := metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)}
	err := errors.Join(
		b.client.AppsV1().Deployments(namespace).DeleteCollection(ctx, background, metav1.ListOptions{}),
		b.client.CoreV1().Pods(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}),
	)
	if err != nil {
		return err
	}
	return w.until(ctx, "all pods are gone", func() bool { return len(w.pods) == 0 })
}
