// Command bench measures the budgets that Lighter is built to, on this machine,
// on fresh local clusters of its own, and prints them as a table:
//
//	make bench
//	go run ./hack/bench -only memory,stream
//
// A missed budget is printed, not an error; the exit code is 1 only if something
// could not be measured. Where a Docker daemon runs, the rows that make sense for
// Docker Swarm are measured on it too.
//
// Where to read: budgets.go (what is measured, and the limits), table.go and
// stats.go (pure), cluster.go and pods.go (what measurements are written with),
// and one file per group of rows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// measurement fills one or more rows of the table.
type measurement struct {
	name string
	run  func(context.Context, *bench) error
}

// measurements run in this order, so that those on one host come first and those
// that break hosts last.
var measurements = []measurement{
	{"start", measureStart},
	{"server", measureServerMemory},
	{"pod", measurePod},
	{"burst", measureBursts},
	{"hosts", measureHosts},
	{"agent", measureAgentMemory},
	{"overhead", measureOverhead},
	{"stream", measureStream},
	{"endpoints", measureEndpoints},
	{"distribution", measureDistribution},
	{"partition", measurePartition},
	{"lost", measureLostHost},
	{"scheduler", measureScheduler},
	{"rebuild", measureRebuild},
	{"cold", measureCold},
	{"swarm", measureSwarm},
}

func main() {
	only := flag.String("only", "", "measure only these, separated by commas: "+strings.Join(names(), ","))
	timeout := flag.Duration("timeout", 12*time.Minute, "give up after that long")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	if err := run(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func names() []string {
	var all []string
	for _, m := range measurements {
		all = append(all, m.name)
	}
	return all
}

func run(ctx context.Context, only string) (err error) {
	wanted := names()
	if only != "" {
		wanted = strings.Split(only, ",")
		for _, name := range wanted {
			if !slices.Contains(names(), name) {
				return fmt.Errorf("-only %s: there are %s", name, strings.Join(names(), ", "))
			}
		}
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: the hosts of a local cluster are namespaces")
	}
	b := newBench()
	defer func() { err = errors.Join(err, b.close()) }()
	start := time.Now()
	for _, m := range measurements {
		if !slices.Contains(wanted, m.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%4.0f s  %s\n", time.Since(start).Seconds(), m.name)
		if failure := m.run(ctx, b); failure != nil {
			err = errors.Join(err, fmt.Errorf("measure %s: %w", m.name, failure))
		}
		if ctx.Err() != nil {
			break
		}
	}
	fmt.Printf("Measured on %d CPUs in %.0f s.%s\n\n", runtime.NumCPU(), time.Since(start).Seconds(), load())
	b.results.print(os.Stdout, only == "")
	return err
}

// load tells how busy the machine was: what else ran is in every figure.
func load() string {
	out, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(out))
	return fmt.Sprintf(" Load average at the end: %s (1 min), %s (5 min).", fields[0], fields[1])
}
