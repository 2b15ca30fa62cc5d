package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const swarmName = "lighter-bench"

// measureSwarm measures Docker Swarm on one host, if a Docker daemon runs that
// is in no swarm yet. What it makes there it removes.
func measureSwarm(ctx context.Context, b *bench) (err error) {
	state, failure := docker(ctx, "info", "--format", "{{.Swarm.LocalNodeState}}")
	switch {
	case failure != nil:
		b.results.noSwarm = "no Docker daemon answers"
		return nil
	case state != "inactive":
		b.results.noSwarm = "this Docker daemon is in a swarm (" + state + "), which is left alone"
		return nil
	}
	if err := b.down(); err != nil { // ours must not be in its figures
		return err
	}
	if _, err := docker(ctx, "swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377"); err != nil {
		b.results.noSwarm = fmt.Sprintf("docker swarm init fails: %v", err)
		return nil
	}
	defer func() {
		_, leaveErr := docker(context.WithoutCancel(ctx), "swarm", "leave", "--force")
		_, imageErr := docker(context.WithoutCancel(ctx), "image", "rm", "--force", swarmName, coldName)
		err = errors.Join(err, leaveErr, imageErr)
	}()
	dir, err := b.context()
	if err != nil {
		return err
	}
	if _, err := docker(ctx, "build", "--quiet", "--tag", swarmName, filepath.Join(dir, "context")); err != nil {
		return err
	}
	if err := b.swarmRebuild(ctx, filepath.Join(dir, "rebuild")); err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	idle, err := dockerMemory()
	if err != nil {
		return err
	}
	b.results.swarm[memServer] = idle
	if err := b.swarmService(ctx, onePod, 1, 10, 1000); err != nil {
		return err
	}
	return b.swarmService(ctx, pods50, 50, 1, 1)
}

// swarmRebuild builds the Dockerfile of four steps again and again.
func (b *bench) swarmRebuild(ctx context.Context, folder string) error {
	if err := fourSteps(folder, "a"); err != nil {
		return err
	}
	var took []float64
	for i := range 11 {
		start := time.Now()
		if _, err := docker(ctx, "build", "--quiet", "--tag", coldName, folder); err != nil {
			return err
		}
		if i > 0 { // the first one is not cached
			took = append(took, milliseconds(time.Since(start)))
		}
	}
	b.results.swarm[rebuild] = median(took)
	return nil
}

// swarmService starts a service several times, until all its tasks run. perSecond
// is the unit of the row: 1 for seconds, 1000 for milliseconds.
func (b *bench) swarmService(ctx context.Context, id string, replicas, times int, perSecond float64) error {
	var took []float64
	for range times {
		start := time.Now()
		if _, err := docker(ctx, "service", "create", "--quiet", "--detach", "--no-resolve-image", "--name", swarmName,
			"--replicas", fmt.Sprint(replicas), swarmName); err != nil {
			return err
		}
		err := swarmRunning(ctx, replicas)
		took = append(took, time.Since(start).Seconds()*perSecond)
		if _, removeErr := docker(ctx, "service", "rm", swarmName); err != nil || removeErr != nil {
			return errors.Join(err, removeErr)
		}
		if err := swarmGone(ctx); err != nil {
			return err
		}
	}
	b.results.swarm[id] = median(took)
	return nil
}

func swarmRunning(ctx context.Context, replicas int) error {
	return poll(ctx, "all tasks run", func() (bool, error) {
		out, err := docker(ctx, "service", "ps", "--format", "{{.CurrentState}}", swarmName)
		return strings.Count(out, "Running") == replicas, err
	})
}

func swarmGone(ctx context.Context) error {
	return poll(ctx, "all containers are gone", func() (bool, error) {
		out, err := docker(ctx, "ps", "--quiet", "--all", "--filter", "label=com.docker.swarm.service.name="+swarmName)
		return out == "", err
	})
}

// poll asks again and again: the docker command has no wait that is as quick.
func poll(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		if ok, err := done(); err != nil || ok {
			return err
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
	}
}

// dockerMemory is what the two daemons take, in MB.
func dockerMemory() (float64, error) {
	all, err := processes("")
	sum := 0.0
	for _, p := range all {
		if p.name == "dockerd" || p.name == "containerd" {
			sum += p.rssAnon
		}
	}
	return sum, err
}

// docker runs a command as a user does who builds with BuildKit, which older
// versions have to be told.
func docker(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=1")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("docker %s: %w: %s", args[0], err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
