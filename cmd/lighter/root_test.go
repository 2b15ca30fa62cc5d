package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestForKubectl(t *testing.T) {
	tests := []struct {
		args []string
		want bool
	}{
		{nil, false},
		{[]string{"--help"}, false},
		{[]string{"--version"}, false},
		{[]string{"get", "pods"}, false}, // through its stub
		{[]string{"-n", "shop", "get", "pods"}, true},
		{[]string{"--kubeconfig=x", "get", "pods"}, true},
		{[]string{"__complete", "get", ""}, true},
		{[]string{"__complete", "local", ""}, false},
		{[]string{"__complete", "ge"}, false},
	}
	for _, test := range tests {
		if got := forKubectl(test.args); got != test.want {
			t.Errorf("%q: %t, want %t", test.args, got, test.want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	child := exec.Command("sh", "-c", "exit 7").Run()
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	tests := []struct {
		name string
		ctx  context.Context
		err  error
		want int
	}{
		{"success", context.Background(), nil, 0},
		{"failure", context.Background(), errors.New("no"), 1},
		{"usage", context.Background(), fmt.Errorf("apply: %w", usageError{errors.New("no")}), 2},
		{"unknown command", context.Background(), errors.New(`unknown command "x" for "lighter"`), 2},
		{"the command of exec", context.Background(), fmt.Errorf("exec: %w", child), 7},
		{"kubectl's own", context.Background(), exitCode(3), 3},
		{"interrupted", stopped, context.Canceled, 130},
	}
	for _, test := range tests {
		if got := codeOf(test.ctx, test.err); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// TestArgumentCount: every verb of ours says that it is used wrongly.
func TestArgumentCount(t *testing.T) {
	for _, args := range [][]string{{"tag", "one"}, {"commit"}, {"local", "exec", "host-1"}, {"token", "create", "what"}, {"server", "x"}} {
		root := newRootCommand()
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		var usage usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), "--help") {
			t.Errorf("%q: %v, want a usage error that leads to the help", args, err)
		}
	}
}

func TestChooseKubeconfig(t *testing.T) {
	tests := []struct {
		name     string
		readable []string
		cluster  string
		want     string
	}{
		{"nothing there", nil, "", ""},
		{"on a server", []string{adminKubeconfig, "/u/.kube/config"}, "/c/kubeconfig", adminKubeconfig},
		{"the user's own", []string{"/u/.kube/config", "/c/kubeconfig"}, "/c/kubeconfig", ""},
		{"the only local cluster", []string{"/c/kubeconfig"}, "/c/kubeconfig", "/c/kubeconfig"},
		{"a local cluster of somebody else", nil, "/c/kubeconfig", ""},
	}
	for _, test := range tests {
		readable := func(path string) bool {
			for _, r := range test.readable {
				if r == path {
					return true
				}
			}
			return false
		}
		got := chooseKubeconfig(readable, "/u/.kube/config", func() string { return test.cluster })
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// TestCommands: every command has a group or is known to have none, and every
// verb of kubectl that we offer exists there.
func TestCommands(t *testing.T) {
	root := newRootCommand()
	for _, command := range root.Commands() {
		if command.GroupID == "" && command.Name() != "version" {
			t.Errorf("%s is in no group", command.Name())
		}
		if command.Short == "" {
			t.Errorf("%s has no description", command.Name())
		}
	}
	kubectl := newKubectlRoot("lighter", nil, configFlags())
	for _, verb := range kubectlVerbs {
		if found, _, err := kubectl.Find([]string{verb.name}); err != nil || found.Name() != verb.name {
			t.Errorf("kubectl has no %s", verb.name)
		}
	}
}

func TestExpiry(t *testing.T) {
	now := time.Now()
	for at, want := range map[time.Time]string{{}: "never", now.Add(-time.Second): "expired", now.Add(time.Hour): "in 1h0m0s"} {
		if got := expiry(at, now); got != want {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
}
