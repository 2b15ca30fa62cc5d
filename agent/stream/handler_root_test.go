package stream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"

	"lighter.dev/lighter/agent/runtime"
)

// node is an agent's endpoint over one pod with a real container.
type node struct {
	t      *testing.T
	engine *runtime.Engine
	spec   runtime.ContainerSpec
	server *httptest.Server

	mu  sync.Mutex
	pod Pod
}

// Lookup implements Pods.
func (n *node) Lookup(namespace, name, uid string) (Pod, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if namespace != n.pod.Namespace || name != n.pod.Name || uid != "" && uid != n.pod.UID {
		return Pod{}, errdefs.ErrNotFound
	}
	return n.pod, nil
}

// List implements Pods.
func (n *node) List() []*corev1.Pod {
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name = n.pod.Namespace, n.pod.Name
	pod.Status.Phase = corev1.PodRunning
	return []*corev1.Pod{pod}
}

// newNode runs `sh -c script` as container main of pod default/web.
func newNode(t *testing.T, script string) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, name := range []string{"runc", "conmon", "busybox"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs %s: %v", name, err)
		}
	}
	dir, err := os.MkdirTemp("", "lighter-stream-")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	engine, err := runtime.New(ctx, runtime.Config{
		StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"),
		Runtime: "runc", CgroupRoot: "/" + filepath.Base(dir),
	})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, engine: engine}
	t.Cleanup(func() {
		if n.server != nil {
			n.server.Close()
		}
		for _, err := range []error{
			engine.Delete(ctx, "web_main_0"), engine.UnpinNamespaces(ctx, filepath.Base(dir)),
			engine.RemovePodCgroup(ctx, "/"), os.RemoveAll(dir),
		} {
			if err != nil {
				t.Errorf("clean up: %v", err)
			}
		}
		cancel()
	})
	n.run(dir, script)
	n.server = httptest.NewServer(NewHandler(Config{Pods: n, Runtime: engine, NodeName: "here"}))
	return n
}

func (n *node) run(dir, script string) {
	n.t.Helper()
	bin := filepath.Join(dir, "root/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		n.t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		n.t.Fatal(err)
	}
	if out, err := exec.Command("cp", busybox, bin+"/busybox").CombinedOutput(); err != nil {
		n.t.Fatalf("%s: %v", out, err)
	}
	for _, name := range strings.Fields("sh cat echo sleep stty nc seq true") {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			n.t.Fatal(err)
		}
	}
	uid := filepath.Base(dir)
	spaces, err := n.engine.PinNamespaces(n.t.Context(), uid, "web", struct{ Net, IPC, UTS bool }{true, true, true})
	if err != nil {
		n.t.Fatal(err)
	}
	err = ns.WithNetNSPath(spaces.Net, func(ns.NetNS) error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.spec = runtime.ContainerSpec{
		ID: "web_main_0", PodUID: uid, PodNamespace: "default", PodName: "web", Name: "main",
		RootFS:       []mount.Mount{{Type: "bind", Source: filepath.Join(dir, "root"), Options: []string{"rbind", "rw"}}},
		Container:    &corev1.Container{Name: "main", Command: []string{"sh", "-c", script}, Stdin: true},
		Namespaces:   spaces,
		CgroupParent: "pods/web",
		LogPath:      filepath.Join(dir, "logs", "0.log"),
	}
	if err := n.engine.PodCgroup(n.t.Context(), n.spec.CgroupParent, nil); err != nil {
		n.t.Fatal(err)
	}
	if err := n.engine.Create(n.t.Context(), n.spec); err != nil {
		n.t.Fatal(err)
	}
	if err := n.engine.Start(n.t.Context(), n.spec.ID); err != nil {
		n.t.Fatal(err)
	}
	n.pod = Pod{
		Namespace: "default", Name: "web", UID: uid, NetNS: spaces.Net, CgroupParent: n.spec.CgroupParent,
		Containers: []Container{
			{Name: "main", ID: n.spec.ID, LogPath: n.spec.LogPath, Running: true},
			{Name: "later", Waiting: "PodInitializing"},
		},
	}
}

func (n *node) url(path string, query url.Values) *url.URL {
	n.t.Helper()
	u, err := url.Parse(n.server.URL + path)
	if err != nil {
		n.t.Fatal(err)
	}
	u.RawQuery = query.Encode()
	return u
}

func (n *node) get(path string) (int, string) {
	n.t.Helper()
	answer, err := http.Get(n.server.URL + path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// executors are the ways in which clients reach the endpoint.
var executors = map[string]func(*rest.Config, *url.URL) (remotecommand.Executor, error){
	"SPDY": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(c, "POST", u)
	},
	"WebSocket v5": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(c, "GET", u.String())
	},
}

const script = "while read line; do echo got $line; done"

func TestExecOverHTTP(t *testing.T) {
	n := newNode(t, script)
	for name, executor := range executors {
		t.Run(name, func(t *testing.T) {
			u := n.url("/exec/default/web/main", url.Values{
				"command": {"sh", "-c", "cat; echo bad >&2; exit 3"}, "input": {"1"}, "output": {"1"}, "error": {"1"},
			})
			e, err := executor(&rest.Config{Host: n.server.URL}, u)
			if err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("text"), Stdout: &stdout, Stderr: &stderr})
			var exit utilexec.CodeExitError
			if ok := asExit(err, &exit); !ok || exit.Code != 3 || stdout.String() != "text" || stderr.String() != "bad\n" {
				t.Errorf("%v, stdout %q, stderr %q", err, stdout.String(), stderr.String())
			}
			u.RawQuery = url.Values{"command": {"no-such-thing"}, "output": {"1"}, "error": {"1"}}.Encode()
			if e, err = executor(&rest.Config{Host: n.server.URL}, u); err != nil {
				t.Fatal(err)
			}
			stderr.Reset()
			err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr})
			if ok := asExit(err, &exit); !ok || exit.Code != 127 || !strings.Contains(stderr.String(), "not found in $PATH") {
				t.Errorf("%v, stderr %q", err, stderr.String())
			}
		})
	}
}

func asExit(err error, to *utilexec.CodeExitError) bool {
	return errors.As(err, to)
}

// sizeQueue gives a size, then blocks until the session ends.
type sizeQueue struct {
	size *remotecommand.TerminalSize
	ctx  context.Context
}

func (q *sizeQueue) Next() *remotecommand.TerminalSize {
	if size := q.size; size != nil {
		q.size = nil
		return size
	}
	<-q.ctx.Done()
	return nil
}

func TestTerminalOverHTTP(t *testing.T) {
	n := newNode(t, script)
	for name, executor := range executors {
		t.Run(name, func(t *testing.T) {
			u := n.url("/exec/default/web/"+n.pod.UID+"/main", url.Values{
				"command": {"sh", "-c", "while [ \"$(stty size 2>/dev/null)\" != '27 91' ]; do sleep 0.02; done; stty size"},
				"output":  {"1"}, "tty": {"1"}, "input": {"1"},
			})
			e, err := executor(&rest.Config{Host: n.server.URL}, u)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			stdin, keyboard := io.Pipe()
			defer func() { _ = keyboard.Close() }()
			var screen bytes.Buffer
			err = e.StreamWithContext(ctx, remotecommand.StreamOptions{
				Stdin: stdin, Stdout: &screen, Tty: true,
				TerminalSizeQueue: &sizeQueue{&remotecommand.TerminalSize{Width: 91, Height: 27}, ctx},
			})
			if err != nil || strings.TrimSpace(screen.String()) != "27 91" {
				t.Errorf("%v, screen %q", err, screen.String())
			}
		})
	}
}

// TestClientGoesAway: nothing is sent either way, only the connection ends.
func TestClientGoesAway(t *testing.T) {
	n := newNode(t, script)
	for name, executor := range executors {
		t.Run(name, func(t *testing.T) {
			u := n.url("/exec/default/web/main", url.Values{"command": {"sleep", sleepTime}, "output": {"1"}})
			e, err := executor(&rest.Config{Host: n.server.URL}, u)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: io.Discard}) }()
			poll(t, "the command to run", func() bool { return len(sleepers()) == 1 })
			cancel()
			<-done
			poll(t, "the command to be killed", func() bool { return len(sleepers()) == 0 })
		})
	}
}

// sleepTime, in seconds, tells this process's commands from those of other tests on
// this machine.
var sleepTime = strconv.Itoa(100_000_000 + os.Getpid())

// sleepers finds this test's command by its argument.
func sleepers() []string {
	var out []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if raw, err := os.ReadFile(file); err == nil && string(raw) == "sleep\x00"+sleepTime+"\x00" {
			out = append(out, file)
		}
	}
	return out
}

func TestAttachOverHTTP(t *testing.T) {
	for name, executor := range executors {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, script)
			e, err := executor(&rest.Config{Host: n.server.URL}, n.url("/attach/default/web/main", url.Values{"input": {"1"}, "output": {"1"}, "error": {"1"}}))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			stdin, keyboard := io.Pipe()
			defer func() { _ = keyboard.Close() }()
			out, screen := io.Pipe()
			done := make(chan error, 1)
			go func() {
				done <- e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: screen, Stderr: io.Discard})
			}()
			_, _ = io.WriteString(keyboard, "one\n")
			answer := make([]byte, 8)
			if _, err := io.ReadFull(out, answer); err != nil || string(answer) != "got one\n" {
				t.Errorf("%q, %v", answer, err)
			}
			cancel()
			<-done
			if st, err := n.engine.Status(t.Context(), n.spec.ID); err != nil || st.State != runtime.StateRunning {
				t.Errorf("after the client left: %v, %v", st.State, err)
			}
		})
	}
}

func TestLogsOverHTTP(t *testing.T) {
	n := newNode(t, "echo one; echo two; read line; echo got $line; exit 1")
	poll(t, "output", func() bool { _, body := n.get("/containerLogs/default/web/main"); return body == "one\ntwo\n" })
	if code, body := n.get("/containerLogs/default/web/main?tailLines=1"); code != 200 || body != "two\n" {
		t.Errorf("%d %q", code, body)
	}
	followed := make(chan string, 1)
	go func() {
		_, body := n.get("/containerLogs/default/web/main?follow=true&tailLines=1")
		followed <- body
	}()
	attached := make(chan error, 1)
	go func() {
		attached <- n.engine.Attach(t.Context(), n.spec.ID, runtime.AttachOptions{Stdin: strings.NewReader("x\n"), Stdout: io.Discard})
	}()
	select {
	case body := <-followed:
		if !strings.HasSuffix(body, "got x\n") {
			t.Errorf("followed %q", body)
		}
	case <-time.After(30 * time.Second):
		t.Error("the end of the container did not end its log")
	}
	<-attached
}

func TestAnswersToBadRequests(t *testing.T) {
	n := newNode(t, script)
	n.mu.Lock()
	n.pod.Containers = append(n.pod.Containers, Container{Name: "over", ID: "gone", LogPath: n.spec.LogPath})
	n.mu.Unlock()
	for path, want := range map[string]string{
		"/containerLogs/default/nobody/main":                  `404 pod "nobody" does not exist on this node`,
		"/containerLogs/default/web/nobody":                   `404 container "nobody" not found in pod "web"`,
		"/containerLogs/default/web/main?previous=true":       `400 previous terminated container "main" in pod "web" not found`,
		"/containerLogs/default/web/later":                    `400 container "later" in pod "web" is waiting to start: PodInitializing`,
		"/containerLogs/default/web/main?tailLines=x":         `400 query parameter tailLines="x" is no number`,
		"/exec/default/web/later?command=true&output=1":       `400 container "later" in pod "web" is waiting to start: PodInitializing`,
		"/exec/default/web/over?command=true&output=1":        `400 container "over" in pod "web" is not running`,
		"/exec/default/web/other-uid/main?command=a&output=1": `404 pod "web" does not exist on this node`,
		"/exec/default/web/main?output=1":                     `400 exec needs a command`,
		"/portForward/default/nobody":                         `404 pod "nobody" does not exist on this node`,
		"/healthz":                                            `200 ok`,
		"/nothing":                                            `404 404 page not found`,
	} {
		code, body := n.get(path)
		if got := fmt.Sprintf("%d %s", code, strings.TrimSpace(body)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if _, body := n.get("/metrics"); !strings.Contains(body, `lighter_agent_pods{phase="Running"} 1`) {
		t.Errorf("metrics: %s", body)
	}
	if _, body := n.get("/stats/summary"); !strings.Contains(body, `"workingSetBytes"`) {
		t.Errorf("summary: %s", body)
	}
	if _, body := n.get("/pods"); !strings.Contains(body, `"kind":"PodList"`) {
		t.Errorf("pods: %s", body)
	}
}

func TestPortForward(t *testing.T) {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		t.Skip("needs IPv6, which this kernel has not or was told to leave")
	}
	n := newNode(t, script)
	// IPv6 alone: the fallback is part of the contract.
	serveInPod(t, n.pod.NetNS, "[::1]:8080")
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: n.server.URL})
	if err != nil {
		t.Fatal(err)
	}
	u := n.url("/portForward/default/web", nil)
	tunnel, err := portforward.NewSPDYOverWebsocketDialer(u, &rest.Config{Host: n.server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("SPDY", func(t *testing.T) {
		forward(t, func(ports []string, stop, ready chan struct{}) (*portforward.PortForwarder, error) {
			dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", u)
			return portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, ports, stop, ready, io.Discard, io.Discard)
		})
	})
	t.Run("SPDY in WebSocket", func(t *testing.T) {
		forward(t, func(ports []string, stop, ready chan struct{}) (*portforward.PortForwarder, error) {
			return portforward.NewOnAddresses(tunnel, []string{"127.0.0.1"}, ports, stop, ready, io.Discard, io.Discard)
		})
	})
}

// serveInPod answers lines on an address within a network namespace.
func serveInPod(t *testing.T, netns, address string) {
	t.Helper()
	var listener net.Listener
	err := ns.WithNetNSPath(netns, func(ns.NetNS) (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			_, _ = fmt.Fprintf(conn, "pod got %s", line)
			_ = conn.Close()
		}
	}()
}

func forward(t *testing.T, open func(ports []string, stop, ready chan struct{}) (*portforward.PortForwarder, error)) {
	t.Helper()
	stop, ready := make(chan struct{}), make(chan struct{})
	f, err := open([]string{"0:8080"}, stop, ready)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	ports, err := f.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "hello %d\n", i)
		body, err := io.ReadAll(conn)
		if err != nil || string(body) != fmt.Sprintf("pod got hello %d\n", i) {
			t.Errorf("%q, %v", body, err)
		}
		_ = conn.Close()
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func poll(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
