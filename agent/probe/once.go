package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubeprobe "k8s.io/kubernetes/pkg/probe"
	grpcprobe "k8s.io/kubernetes/pkg/probe/grpc"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
)

// once makes a single probe. err means that nothing was learned.
func (m *Manager) once(ctx context.Context, t Target, p *corev1.Probe) (ok bool, message string, err error) {
	timeout := seconds(p.TimeoutSeconds, 1)
	var result kubeprobe.Result
	switch {
	case p.Exec != nil:
		return m.exec(ctx, t, p.Exec.Command, timeout)
	case p.HTTPGet != nil:
		result, message, err = m.get(t, p.HTTPGet, timeout)
	case p.TCPSocket != nil:
		port, portErr := kubeprobe.ResolveContainerPort(p.TCPSocket.Port, t.Container)
		if portErr != nil {
			return false, "", portErr
		}
		host := p.TCPSocket.Host
		if host == "" {
			host = t.Address
		}
		result, message, err = m.tcp.Probe(host, port, timeout)
	case p.GRPC != nil:
		service := ""
		if p.GRPC.Service != nil {
			service = *p.GRPC.Service
		}
		useTLS := p.GRPC.Mode != nil && *p.GRPC.Mode == corev1.GRPCProbeModeTLS
		result, message, err = m.grpc.Probe(t.Address, service, int(p.GRPC.Port), timeout, grpcprobe.ProbeOptions{UseTLS: useTLS})
	default:
		return false, "", errors.New("the probe has no handler")
	}
	return result == kubeprobe.Success || result == kubeprobe.Warning, message, err
}

func (m *Manager) get(t Target, get *corev1.HTTPGetAction, timeout time.Duration) (kubeprobe.Result, string, error) {
	req, err := httpprobe.NewRequestForHTTPGetAction(get, t.Container, t.Address, "probe")
	if err != nil {
		return kubeprobe.Unknown, "", err
	}
	if get.Protocol != nil && *get.Protocol == corev1.HTTPProtocolHTTP2 {
		return m.http.ProbeH2C(req, timeout)
	}
	return m.http.Probe(req, timeout)
}

// maxOutput is how much of a command's output an Event shows.
const maxOutput = 10 << 10

func (m *Manager) exec(ctx context.Context, t Target, cmd []string, timeout time.Duration) (bool, string, error) {
	stdout, stderr, code, err := m.cfg.Exec(ctx, t.ContainerID, cmd, timeout)
	if errors.Is(err, context.DeadlineExceeded) {
		return false, fmt.Sprintf("command timed out: %q timed out after %v", cmd, timeout), nil
	}
	if err != nil {
		return false, "", err
	}
	output := append(bytes.Clone(stdout), stderr...)
	return code == 0, string(output[:min(len(output), maxOutput)]), nil
}

// state is what a probe believes.
type state int

const (
	unknown state = iota
	yes
	no
)

// verdict counts answers in a row against the thresholds.
type verdict struct {
	success, failure int
	state            state
	last             state
	run              int
}

// add counts one answer and reports whether it changed the verdict.
func (v *verdict) add(ok bool) bool {
	answer, threshold := no, v.failure
	if ok {
		answer, threshold = yes, v.success
	}
	if answer == v.last {
		v.run++
	} else {
		v.last, v.run = answer, 1
	}
	if v.run < threshold || v.state == answer {
		return false
	}
	v.state = answer
	return true
}
