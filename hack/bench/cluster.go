package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"lighter.dev/lighter/cmd/lighter/local"
)

const (
	clusterName = "bench"
	binary      = "bin/lighter"
)

// bench is what measurements share: one cluster at a time, and the table.
type bench struct {
	results *results
	cluster *local.Cluster // nil: none is up
	client  kubernetes.Interface
	image   bool // the image of the pods is built in this cluster
	temp    []string
}

func newBench() *bench { return &bench{results: newResults()} }

// need makes sure that a cluster of that many hosts is up: the one that runs
// already, or a fresh one.
func (b *bench) need(ctx context.Context, hosts int) error {
	if b.cluster != nil && len(b.cluster.Hosts) == hosts {
		return nil
	}
	_, err := b.fresh(ctx, hosts)
	return err
}

// fresh replaces whatever is there by a new, empty cluster.
func (b *bench) fresh(ctx context.Context, hosts int) (upTimes, error) {
	if err := b.down(); err != nil {
		return upTimes{}, err
	}
	out, err := b.local(ctx, "up", "--hosts", strconv.Itoa(hosts))
	if err != nil {
		return upTimes{}, err
	}
	if b.cluster, err = local.Load(clusterName, ""); err != nil {
		return upTimes{}, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", b.cluster.Kubeconfig())
	if err != nil {
		return upTimes{}, err
	}
	config.QPS = -1 // the client must not be what we measure
	if b.client, err = kubernetes.NewForConfig(config); err != nil {
		return upTimes{}, err
	}
	return parseUp(out)
}

// down removes the cluster, also one that an interrupted run has left.
func (b *bench) down() error {
	b.cluster, b.client, b.image = nil, nil, false
	_, err := b.local(context.Background(), "down")
	return err
}

func (b *bench) close() error {
	err := b.down()
	for _, dir := range b.temp {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// local runs "lighter local" on our cluster and returns what it prints.
func (b *bench) local(ctx context.Context, args ...string) (string, error) {
	return b.lighter(ctx, append([]string{"local", "--name", clusterName}, args...)...)
}

// lighter runs a command as a user does.
func (b *bench) lighter(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = os.Environ()
	if b.cluster != nil {
		cmd.Env = append(cmd.Env, "KUBECONFIG="+b.cluster.Kubeconfig())
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("lighter %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// netns is the file that holds a host's network namespace.
func (b *bench) netns(host string) string {
	return filepath.Join(local.RunRoot, clusterName, host+".net")
}

// tempDir makes a folder that close removes.
func (b *bench) tempDir() (string, error) {
	dir, err := os.MkdirTemp("", "lighter-bench-")
	b.temp = append(b.temp, dir)
	return dir, err
}

// upTimes are seconds since "lighter local up" began.
type upTimes struct{ started, api, node, all float64 }

var upLine = regexp.MustCompile(`^ *([0-9.]+) s  (.*)$`)

// parseUp reads the steps that "lighter local up" reports.
func parseUp(output string) (upTimes, error) {
	var t upTimes
	lines := bufio.NewScanner(strings.NewReader(output))
	for lines.Scan() {
		match := upLine.FindStringSubmatch(lines.Text())
		if match == nil {
			continue
		}
		seconds, err := strconv.ParseFloat(match[1], 64)
		if err != nil {
			return t, err
		}
		switch text := match[2]; {
		case strings.HasSuffix(text, "server started"):
			t.started = seconds
		case strings.Contains(text, "the API is ready"):
			t.api = seconds
		case text == "host-1 is Ready":
			t.node = seconds
		}
		t.all = seconds
	}
	if t.started == 0 || t.api == 0 || t.node == 0 {
		return t, fmt.Errorf("lighter local up does not report all steps:\n%s", output)
	}
	return t, lines.Err()
}
