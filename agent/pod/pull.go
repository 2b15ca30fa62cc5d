package pod

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/api/v1alpha1"
)

// notBuiltRetry: a build may end at any moment, so a pod that waits for one
// looks often.
const notBuiltRetry = 2 * time.Second

// pull makes the image of a container present, beside the worker.
func (w *worker) pull(c *Container) {
	c.Op, c.Image.Busy = Pulling, true
	spec := c.Spec
	req := image.Request{Namespace: w.view.Pod.Namespace, Ref: spec.Image, Pin: w.pin(c), Policy: spec.ImagePullPolicy}
	pod := w.pod()
	ctx := w.setUpCtx
	w.async(func() func() {
		began := time.Now()
		req.Auth = w.credentials(ctx, pod)
		var pulled atomic.Bool
		req.Progress = func(image.Progress) {
			if !pulled.Swap(true) {
				w.containerEvent(pod, spec, corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", spec.Image))
			}
		}
		img, err := w.cfg.Images.Ensure(ctx, req)
		return func() { w.pulled(c, spec, img, err, pulled.Load(), time.Since(began)) }
	})
}

// pulled takes the result of a pull.
func (w *worker) pulled(c *Container, spec *corev1.Container, img image.Image, err error, moved bool, took time.Duration) {
	c.Op, c.Image.Busy = Idle, false
	if c.Spec.Image != spec.Image {
		return // the wish changed meanwhile; Next pulls the new one
	}
	if err == nil {
		c.Image.succeed()
		c.Has = img
		text := fmt.Sprintf("Container image %q already present on machine", spec.Image)
		if moved {
			took = took.Truncate(time.Millisecond)
			text = fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %d bytes.", spec.Image, took, took, img.Size)
		}
		w.containerEvent(w.view.Pod, spec, corev1.EventTypeNormal, "Pulled", text)
		return
	}
	if w.setUpCtx.Err() != nil {
		c.Image.Err = err
		return
	}
	first, limit := firstBackoff, maxBackoff
	if errors.Is(err, image.ErrNotBuilt) {
		first, limit = notBuiltRetry, notBuiltRetry
	}
	known := c.Image.Err != nil && c.Image.Err.Error() == err.Error()
	c.Image.fail(err, time.Now(), first, limit)
	if !known {
		w.log.Warn("Cannot get image", "container", spec.Name, "image", spec.Image, "err", err)
		w.containerEvent(w.view.Pod, spec, corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", spec.Image, pullText(err)))
		w.containerEvent(w.view.Pod, spec, corev1.EventTypeWarning, "Failed", "Error: "+pullReason(err))
	}
}

// pullReason names the error as a waiting container shows it.
func pullReason(err error) string {
	for _, known := range []error{image.ErrNeverPull, image.ErrInvalidName, image.ErrNotBuilt} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return image.ErrPull.Error()
}

// pullText is the error without the reason, which stands beside it everywhere.
func pullText(err error) string { return strings.TrimPrefix(err.Error(), pullReason(err)+": ") }

// pin is the digest the image has to have: that of the attempt before, so that
// a restart never changes what runs, else that of the pod's annotation.
func (w *worker) pin(c *Container) digest.Digest {
	if c.Current != nil && c.Current.Spec.ImageRef == c.Spec.Image && c.Current.Spec.ImageID != "" {
		return digest.Digest(c.Current.Spec.ImageID)
	}
	text := w.view.Pod.Annotations[v1alpha1.DigestsAnnotation]
	if text == "" {
		return ""
	}
	pins := map[string]digest.Digest{}
	if err := json.Unmarshal([]byte(text), &pins); err != nil {
		w.log.Warn("Ignoring malformed annotation", "annotation", v1alpha1.DigestsAnnotation, "err", err)
		return ""
	}
	name, err := v1alpha1.NormalizeTag(c.Spec.Image)
	if err != nil {
		return "" // the user pinned it by hand, or the pull will say what is wrong
	}
	return pins[name]
}

// credentials reads the pod's imagePullSecrets. One that is missing is told to
// the user, but the pull goes on: the image may be public.
func (w *worker) credentials(ctx context.Context, pod *corev1.Pod) []image.Credential {
	var out []image.Credential
	for _, ref := range pod.Spec.ImagePullSecrets {
		secret, err := w.cfg.Objects.Secret(ctx, pod.Namespace, ref.Name)
		if err == nil {
			var found []image.Credential
			found, err = parseDockerConfig(secret)
			out = append(out, found...)
		}
		if err != nil {
			w.event(corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
				fmt.Sprintf("Unable to retrieve image pull secret %s: %v; attempting to pull the image may not succeed.", ref.Name, err))
		}
	}
	return out
}

// dockerAuth is one entry of a docker config file.
type dockerAuth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
}

// parseDockerConfig reads both forms of registry secrets.
func parseDockerConfig(secret *corev1.Secret) ([]image.Credential, error) {
	entries := map[string]dockerAuth{}
	switch {
	case len(secret.Data[corev1.DockerConfigJsonKey]) > 0:
		file := struct {
			Auths map[string]dockerAuth `json:"auths"`
		}{}
		if err := json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &file); err != nil {
			return nil, fmt.Errorf("secret %s: %s: %w", secret.Name, corev1.DockerConfigJsonKey, err)
		}
		entries = file.Auths
	case len(secret.Data[corev1.DockerConfigKey]) > 0:
		if err := json.Unmarshal(secret.Data[corev1.DockerConfigKey], &entries); err != nil {
			return nil, fmt.Errorf("secret %s: %s: %w", secret.Name, corev1.DockerConfigKey, err)
		}
	default:
		return nil, fmt.Errorf("secret %s has neither %s nor %s", secret.Name, corev1.DockerConfigJsonKey, corev1.DockerConfigKey)
	}
	var out []image.Credential
	for host, auth := range entries {
		if auth.Auth != "" && auth.Username == "" {
			plain, err := base64.StdEncoding.DecodeString(auth.Auth)
			if err != nil {
				return nil, fmt.Errorf("secret %s: auth of %s: %w", secret.Name, host, err)
			}
			auth.Username, auth.Password, _ = strings.Cut(string(plain), ":")
		}
		host = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://"), "/")
		out = append(out, image.Credential{Host: host, Username: auth.Username, Password: auth.Password, IdentityToken: auth.IdentityToken})
	}
	return out, nil
}
