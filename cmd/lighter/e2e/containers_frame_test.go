package e2e

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// dock is a namespace with the image "toolbox", used as a Docker host would be.
type dock struct {
	t  *testing.T
	ns string
}

func newDock(t *testing.T) dock {
	t.Helper()
	ns := namespace(t)
	toolbox(t, ns)
	return dock{t, ns}
}

// args puts the namespace behind the verb: what follows an image is its command.
func (d dock) args(args []string) []string {
	return append([]string{args[0], "-n", d.ns}, args[1:]...)
}

// try runs a verb to its end.
func (d dock) try(args ...string) result {
	d.t.Helper()
	return tool{"lighter", shared.binary}.try(d.t, "", d.args(args)...)
}

// do runs a verb that has to succeed, and returns what it printed, trimmed.
func (d dock) do(args ...string) string {
	d.t.Helper()
	r := d.try(args...)
	if r.code != 0 {
		d.t.Fatalf("lighter %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return strings.TrimSpace(r.out)
}

// fails runs a verb that has to end with this code and to say all of these.
func (d dock) fails(code int, args []string, wants ...string) {
	d.t.Helper()
	r := d.try(args...)
	if r.code != code {
		d.t.Errorf("lighter %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.out, r.err)
	}
	contains(d.t, "lighter "+strings.Join(args, " "), r.out+r.err, wants...)
}

// prints compares what a verb that has to succeed prints.
func (d dock) prints(want string, args ...string) {
	d.t.Helper()
	if got := d.do(args...); got != want {
		d.t.Errorf("lighter %s: %q, want %q", strings.Join(args, " "), got, want)
	}
}

// in runs a shell line in a container.
func (d dock) in(name, line string) string {
	d.t.Helper()
	return d.do("exec", name, "--", "sh", "-c", line)
}

// says waits until a container's log has a text, whatever is between its lines.
func (d dock) says(name, text string) {
	d.t.Helper()
	eventually(d.t, 20*time.Second, name+" says "+text, func() error {
		if log := d.do("logs", name); !strings.Contains(strings.ReplaceAll(log, "got it\n", ""), text) && !strings.Contains(log, text) {
			return errOutput(log)
		}
		return nil
	})
}

// nothing: no pod of this name is left, "" is any.
func (d dock) nothing(name string) {
	d.t.Helper()
	eventually(d.t, 20*time.Second, "no container is left", func() error {
		pods, err := client(d.t).CoreV1().Pods(d.ns).List(d.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, pod := range pods.Items {
			if name == "" || pod.Name == name {
				return apierrors.NewAlreadyExists(corev1.Resource("pods"), pod.Name)
			}
		}
		return nil
	})
}

// status is that of a container.
func (d dock) status(name string) corev1.ContainerStatus {
	d.t.Helper()
	statuses := getPod(d.t, d.ns, name).Status.ContainerStatuses
	if len(statuses) != 1 {
		d.t.Fatalf("container %s has the statuses %+v", name, statuses)
	}
	return statuses[0]
}

// session is a command at a terminal.
type session struct {
	t      *testing.T
	master console.Console
	cmd    *exec.Cmd
	done   chan error

	mu     sync.Mutex
	screen bytes.Buffer
}

// terminal starts a verb at a terminal of 100 by 30.
func (d dock) terminal(args ...string) *session {
	d.t.Helper()
	master, path, err := console.NewPty()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := master.Resize(console.WinSize{Width: 100, Height: 30}); err != nil {
		d.t.Fatal(err)
	}
	slave, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer slave.Close()
	k := tool{"lighter", shared.binary}
	s := &session{t: d.t, master: master, cmd: k.command(d.t, time.Minute, d.args(args)...), done: make(chan error, 1)}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() { _, _ = io.Copy(s, master) }()
	go func() { s.done <- s.cmd.Wait() }()
	d.t.Cleanup(func() { _ = master.Close() })
	return s
}

// Write takes what the terminal shows.
func (s *session) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.screen.Write(p)
}

func (s *session) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.screen.String()
}

// sized waits until the terminal in the container is as large as this one. On a
// machine that is busy enough the size may come after the first keys.
func (s *session) sized() {
	s.t.Helper()
	eventually(s.t, 20*time.Second, "the terminal has its size", func() error {
		if _, err := io.WriteString(s.master, "stty size\r"); err != nil {
			return err
		}
		if shown := s.shown(); !strings.Contains(shown, "30 100") {
			return errOutput(shown)
		}
		return nil
	})
}

// types sends keys and waits until the screen shows something.
func (s *session) types(keys, want string) {
	s.t.Helper()
	if _, err := io.WriteString(s.master, keys); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, 20*time.Second, "the terminal shows "+want, func() error {
		if shown := s.shown(); !strings.Contains(shown, want) {
			return errOutput(shown)
		}
		return nil
	})
}

// over waits for the command's end, however that is.
func (s *session) over() {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(slack * 30 * time.Second):
		s.t.Fatalf("the command does not end; the terminal shows\n%s", s.shown())
	}
}

// ends waits for the command's end with this code.
func (s *session) ends(code int) {
	s.t.Helper()
	s.over()
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("exit code %d, want %d; the terminal shows\n%s", got, code, s.shown())
	}
}
