package pod

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
)

// postStartLimit bounds a postStart hook, which has no deadline of its own.
const postStartLimit = 2 * time.Minute

// postStart runs the hook of a container that was just started.
func (w *worker) postStart(in startInput, id string) error {
	l := in.spec.Lifecycle
	if l == nil || l.PostStart == nil {
		return nil
	}
	if err := w.handle(in.ctx, l.PostStart, in.spec, id, in.ips, postStartLimit); err != nil {
		return fmt.Errorf("%w: %w", errPostStart, err)
	}
	return nil
}

// preStop runs the hook of a container that will be stopped; it counts against
// the grace period.
func (w *worker) preStop(ctx context.Context, _ *corev1.Pod, spec *corev1.Container, id string, ips []netip.Addr, grace time.Duration) error {
	if spec.Lifecycle == nil || spec.Lifecycle.PreStop == nil {
		return nil
	}
	if err := w.handle(ctx, spec.Lifecycle.PreStop, spec, id, ips, grace); err != nil {
		return fmt.Errorf("PreStopHook failed: %w", err)
	}
	return nil
}

// handle runs one lifecycle handler within limit.
func (w *worker) handle(ctx context.Context, h *corev1.LifecycleHandler, spec *corev1.Container, id string, ips []netip.Addr, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	switch {
	case h.Exec != nil:
		stdout, stderr, code, err := w.cfg.Engine.ExecSync(ctx, id, h.Exec.Command, limit)
		if err != nil {
			return fmt.Errorf("%q: %w", h.Exec.Command, err)
		}
		if code != 0 {
			return fmt.Errorf("%q exited with %d: %s%s", h.Exec.Command, code, stdout, stderr)
		}
		return nil
	case h.HTTPGet != nil:
		return get(ctx, h.HTTPGet, spec, ips)
	case h.Sleep != nil:
		timer := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		return nil
	}
	return fmt.Errorf("this kind of lifecycle handler is not supported")
}

// get makes the request of an httpGet handler; any status below 400 is success.
func get(ctx context.Context, action *corev1.HTTPGetAction, spec *corev1.Container, ips []netip.Addr) error {
	host := ""
	if len(ips) > 0 {
		host = ips[0].String()
	}
	req, err := httpprobe.NewRequestForHTTPGetAction(action, spec, host, "lifecycle")
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req.WithContext(ctx))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 10<<10)); err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("GET %s: %s", req.URL, resp.Status)
	}
	return nil
}
