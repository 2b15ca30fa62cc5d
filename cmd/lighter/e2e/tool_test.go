package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool is a program with kubectl's verbs: lighter or kubectl itself.
type tool struct{ name, path string }

// result is what a command has said and how it ended.
type result struct {
	out, err string
	code     int
}

// both runs a test with lighter's own verbs and with the real kubectl.
func both(t *testing.T, test func(t *testing.T, k tool)) {
	needCluster(t)
	t.Run("lighter", func(t *testing.T) {
		t.Parallel()
		test(t, tool{"lighter", shared.binary})
	})
	t.Run("kubectl", func(t *testing.T) {
		t.Parallel()
		test(t, tool{"kubectl", kubectl(t)})
	})
}

// kubectl prefers the one of our Kubernetes release.
func kubectl(t *testing.T) string {
	t.Helper()
	own, err := filepath.Abs("../../../bin/kubectl")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(own); err == nil {
		return own
	}
	path, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("there is no kubectl: go build -o bin/kubectl ./hack/kubectl makes one")
	}
	return path
}

// command prepares a call that is killed when it takes longer than limit, which is
// that of a quiet machine.
func (k tool) command(t *testing.T, limit time.Duration, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), slack*limit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, k.path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+shared.kubeconfig)
	return cmd
}

// try runs a command to its end, with an optional standard input.
func (k tool) try(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	cmd := k.command(t, 90*time.Second, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %s: %v", k.name, strings.Join(args, " "), err)
	}
	return result{out: stdout.String(), err: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// run runs a command that has to succeed and returns what it printed.
func (k tool) run(t *testing.T, args ...string) string {
	t.Helper()
	r := k.try(t, "", args...)
	if r.code != 0 {
		t.Fatalf("%s %s: exit code %d\n%s%s", k.name, strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// wants runs a command that has to succeed and to print all of these.
func (k tool) wants(t *testing.T, args []string, wants ...string) {
	t.Helper()
	contains(t, k.name+" "+strings.Join(args, " "), k.run(t, args...), wants...)
}

// fails runs a command that has to fail and to say all of these.
func (k tool) fails(t *testing.T, args []string, wants ...string) {
	t.Helper()
	r := k.try(t, "", args...)
	what := k.name + " " + strings.Join(args, " ")
	if r.code == 0 {
		t.Errorf("%s: succeeds\n%s%s", what, r.out, r.err)
	}
	contains(t, what, r.out+r.err, wants...)
}

func contains(t *testing.T, what, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%s: no %q in:\n%s", what, want, text)
		}
	}
}
