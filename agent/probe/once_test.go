package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestVerdict(t *testing.T) {
	for name, tt := range map[string]struct {
		success, failure int
		answers          string // + and -
		changes          string // what add reports for each
	}{
		"the first answer counts":       {1, 3, "+", "y"},
		"failures in a row":             {1, 3, "---", "..y"},
		"an answer between starts anew": {1, 3, "--+--", "..y.."},
		"no change, no report":          {1, 1, "++--", "y.y."},
		"success may have to last too":  {2, 1, "-+-++", "y...y"},
		"it goes back and forth":        {1, 2, "+--+--", "y.yy.y"},
	} {
		v := verdict{success: tt.success, failure: tt.failure}
		var got strings.Builder
		for _, a := range tt.answers {
			if v.add(a == '+') {
				got.WriteByte('y')
			} else {
				got.WriteByte('.')
			}
		}
		if got.String() != tt.changes {
			t.Errorf("%s: %s gives %s, want %s", name, tt.answers, got.String(), tt.changes)
		}
	}
}

// TestOnce asks real servers on the loopback interface.
func TestOnce(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/well" || r.Header.Get("X-Probe") != "1" {
			http.Error(w, "sick", http.StatusInternalServerError)
		}
	}))
	defer web.Close()
	_, webPort, err := net.SplitHostPort(web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port := intstr.Parse(webPort)
	grpcPort, setHealth := serveHealth(t)
	header := []corev1.HTTPHeader{{Name: "X-Probe", Value: "1"}}
	service := "shop"
	tests := map[string]struct {
		handler corev1.ProbeHandler
		ok      bool
		err     bool
		message string
	}{
		"http":               {corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/well", Port: port, HTTPHeaders: header}}, true, false, ""},
		"http by port name":  {corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/well", Port: intstr.FromString("web"), HTTPHeaders: header}}, true, false, ""},
		"http, sick":         {corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: port}}, false, false, "500"},
		"tcp":                {corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port}}, true, false, ""},
		"tcp, nobody there":  {corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(1)}}, false, false, "refused"},
		"tcp, no such port":  {corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("none")}}, false, true, ""},
		"grpc":               {corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: grpcPort}}, true, false, ""},
		"grpc, sick service": {corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: grpcPort, Service: &service}}, false, false, "NOT_SERVING"},
		"exec":               {corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}, true, false, "output"},
		"exec, non-zero":     {corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"false"}}}, false, false, "output"},
		"exec, too slow":     {corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"slow"}}}, false, false, "timed out"},
		"exec, cannot run":   {corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"broken"}}}, false, true, ""},
		"no handler":         {corev1.ProbeHandler{}, false, true, ""},
	}
	setHealth(service, grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	m := New(Config{Exec: pretend})
	target := Target{
		Pod: &corev1.Pod{}, Address: "127.0.0.1", ContainerID: "c",
		Container: &corev1.Container{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: port.IntVal}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ok, message, err := m.once(t.Context(), target, &corev1.Probe{ProbeHandler: tt.handler, TimeoutSeconds: 30})
			if ok != tt.ok || (err != nil) != tt.err || !strings.Contains(message, tt.message) {
				t.Errorf("%v, %q, %v; want %v, %q, error %v", ok, message, err, tt.ok, tt.message, tt.err)
			}
		})
	}
}

// pretend stands in for a container.
func pretend(_ context.Context, _ string, cmd []string, _ time.Duration) ([]byte, []byte, int, error) {
	switch cmd[0] {
	case "true":
		return []byte("output"), nil, 0, nil
	case "false":
		return nil, []byte("output"), 1, nil
	case "slow":
		return nil, nil, 0, fmt.Errorf("exec: %w", context.DeadlineExceeded)
	}
	return nil, nil, 0, errors.New("no such container")
}

func serveHealth(t *testing.T) (int32, func(string, grpc_health_v1.HealthCheckResponse_ServingStatus)) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, state := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, state)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	_, text, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int32(port), state.SetServingStatus
}
