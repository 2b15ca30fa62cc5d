package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// measureScheduler runs the scheduler's own benchmark: pure decisions, no API.
func measureScheduler(ctx context.Context, b *bench) error {
	out, err := goBench(ctx, "./controller/scheduler/fit", "^BenchmarkSchedule5000Nodes$/^plain$", "2s")
	if err != nil {
		return err
	}
	value, err := metric(out, "pods/s")
	if err != nil {
		return err
	}
	b.results.set(scheduler, value, "decisions and their bookkeeping, without the API")
	return nil
}

// measureRebuild runs the builder's own benchmark: client, tunnel and BuildKit.
func measureRebuild(ctx context.Context, b *bench) error {
	for _, row := range []struct{ id, name, note string }{
		{rebuild, "cached", "nothing changed; client, connection and BuildKit in one process (Docker: its command)"},
		{rebuildOne, "onefile", "one file changed: a COPY and a RUN step run"},
	} {
		value, err := goBuild(ctx, row.name)
		if err != nil {
			return err
		}
		b.results.set(row.id, value, "%s", row.note)
	}
	return nil
}

// goBuild is one case of the builder's benchmark, in milliseconds.
func goBuild(ctx context.Context, name string) (float64, error) {
	out, err := goBench(ctx, "./agent/build", "^BenchmarkBuild$/^"+name+"$", "3s")
	if err != nil {
		return 0, err
	}
	value, err := metric(out, "ns/op")
	return value / 1e6, err
}

func goBench(ctx context.Context, pkg, name, benchtime string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", name, "-benchtime", benchtime, pkg)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go test %s: %w\n%s", pkg, err, out.String())
	}
	return out.String(), nil
}

// metric finds a figure by its unit in the output of go test -bench
// (golang.org/design/14313-benchmark-format).
func metric(output, unit string) (float64, error) {
	for line := range strings.Lines(output) {
		fields := strings.Fields(line)
		if len(fields) == 0 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		for i, field := range fields {
			if field == unit {
				return strconv.ParseFloat(fields[i-1], 64)
			}
		}
	}
	return 0, fmt.Errorf("no %s in:\n%s", unit, output)
}
