package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// coldDockerfile is built by both, on a base that each has built. Its four steps
	// are two COPY and two RUN.
	coldDockerfile = "FROM " + swarmName + "\nWORKDIR /app\nCOPY a.txt .\nRUN [\"/bin/busybox\", \"cp\", \"a.txt\", \"copy.txt\"]\n" +
		"COPY b.txt .\nRUN [\"/bin/busybox\", \"cp\", \"b.txt\", \"copy.txt\"]\n"
	coldName   = swarmName + "-cold"
	coldRounds = 11
)

// measureCold compares a build of which every step has to run with that of
// Docker's daemon, if one answers: the commands that a user types, with all that
// happens in them. They take turns, so that a busy machine is busy for both.
func measureCold(ctx context.Context, b *bench) (err error) {
	version, failure := docker(ctx, "info", "--format", "{{.ServerVersion}}")
	if failure != nil {
		b.results.notes[cold] = "not compared: no Docker daemon answers"
		return nil
	}
	dir, err := b.context()
	if err != nil {
		return err
	}
	if _, err := docker(ctx, "build", "--quiet", "--tag", swarmName, filepath.Join(dir, "context")); err != nil {
		b.results.notes[cold] = fmt.Sprintf("not compared: %v", err)
		return nil
	}
	defer func() {
		_, failure := docker(context.WithoutCancel(ctx), "image", "rm", "--force", swarmName)
		err = errors.Join(err, failure)
	}()
	if err := b.need(ctx, 1); err != nil {
		return err
	}
	if _, err := b.lighter(ctx, "build", "--quiet", "--tag", swarmName, filepath.Join(dir, "context")); err != nil {
		return err
	}
	ours, theirs, err := b.coldTurns(ctx, filepath.Join(dir, "cold"))
	if err != nil {
		return err
	}
	b.results.set(cold, median(ours)/median(theirs), "p50 of the commands: lighter build %.0f ms, docker build (%s) %.0f ms", median(ours), version, median(theirs))
	return nil
}

// coldTurns builds with one and the other, with another first file each time, and
// returns what they took in milliseconds.
func (b *bench) coldTurns(ctx context.Context, folder string) (ours, theirs []float64, err error) {
	for i := range coldRounds + 1 {
		// Docker may remember what an earlier run has built.
		if err := fourSteps(folder, time.Now().String()); err != nil {
			return nil, nil, err
		}
		start := time.Now()
		if _, err := b.lighter(ctx, "build", "--quiet", "--tag", coldName, folder); err != nil {
			return nil, nil, err
		}
		turn := time.Now()
		if _, err := docker(ctx, "build", "--quiet", "--tag", coldName, folder); err != nil {
			return nil, nil, err
		}
		if i > 0 { // the first one unpacks the base
			ours, theirs = append(ours, milliseconds(turn.Sub(start))), append(theirs, milliseconds(time.Since(turn)))
		}
		if _, err := docker(ctx, "image", "rm", "--force", coldName); err != nil {
			return nil, nil, err
		}
	}
	return ours, theirs, nil
}

// fourSteps makes the folder of coldDockerfile, or gives it another first file.
func fourSteps(folder, first string) error {
	write := func(name, text string) error { return os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644) }
	return errors.Join(os.MkdirAll(folder, 0o755), write("Dockerfile", coldDockerfile), write("a.txt", first), write("b.txt", "b"))
}
