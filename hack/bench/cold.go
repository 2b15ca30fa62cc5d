package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// coldDockerfile is that of the builder's benchmark, on the image of ours that
// Docker is given: two COPY and two RUN steps.
const coldDockerfile = "FROM " + swarmName + "\nWORKDIR /app\nCOPY a.txt .\nRUN [\"/bin/busybox\", \"cp\", \"a.txt\", \"copy.txt\"]\n" +
	"COPY b.txt .\nRUN [\"/bin/busybox\", \"cp\", \"b.txt\", \"copy.txt\"]\n"

// measureCold compares a build of which every step has to run with that of
// Docker's daemon, if one answers.
func measureCold(ctx context.Context, b *bench) (err error) {
	if _, failure := docker(ctx, "info"); failure != nil {
		b.results.notes[cold] = "not compared: no Docker daemon answers"
		return nil
	}
	dir, err := b.context()
	if err != nil {
		return err
	}
	if _, err := docker(ctx, "build", "--quiet", "--tag", swarmName, filepath.Join(dir, "context")); err != nil {
		return err
	}
	defer func() {
		_, failure := docker(context.WithoutCancel(ctx), "image", "rm", "--force", swarmName)
		err = errors.Join(err, failure)
	}()
	theirs, err := dockerCold(ctx, filepath.Join(dir, "cold"))
	if err != nil {
		return err
	}
	ours, err := goBuild(ctx, "cold")
	if err != nil {
		return err
	}
	b.results.set(cold, ours/theirs, "%.0f ms, Docker %.0f ms", ours, theirs)
	return nil
}

// dockerCold builds several times, with another first file each time.
func dockerCold(ctx context.Context, folder string) (float64, error) {
	write := func(name, text string) error { return os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644) }
	if err := errors.Join(os.Mkdir(folder, 0o755), write("Dockerfile", coldDockerfile), write("b.txt", "b")); err != nil {
		return 0, err
	}
	var took []float64
	for i := range 6 {
		if err := write("a.txt", fmt.Sprint("a", i)); err != nil {
			return 0, err
		}
		start := time.Now()
		if _, err := docker(ctx, "build", "--quiet", folder); err != nil {
			return 0, err
		}
		if i > 0 { // the first one unpacks the base
			took = append(took, milliseconds(time.Since(start)))
		}
	}
	return median(took), nil
}
