package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/api/events"
)

// daemonOptions are the flags that "server" and "agent" share.
type daemonOptions struct {
	logLevel  string
	logFormat string
}

func (o *daemonOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&o.logFormat, "log-format", "text", "text or json")
}

// logger makes the daemon's log and sends what libraries log the same way.
func (o *daemonOptions) logger(out io.Writer) (*slog.Logger, error) {
	handler, err := o.handler(out)
	if err != nil {
		return nil, err
	}
	log := slog.New(handler)
	slog.SetDefault(log)
	klog.SetSlogLogger(slog.New(quiet{handler}).With("from", "kubernetes"))
	image.RouteLibraryLogs(log)
	return log, nil
}

// handler reports every wrong flag at once.
func (o *daemonOptions) handler(out io.Writer) (slog.Handler, error) {
	var errs flagErrors
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		errs.wrong("log-level", fmt.Errorf("%q: want debug, info, warn or error", o.logLevel))
	}
	options := &slog.HandlerOptions{Level: level}
	switch o.logFormat {
	case "text":
		return slog.NewTextHandler(out, options), errs.join()
	case "json":
		return slog.NewJSONHandler(out, options), errs.join()
	}
	errs.wrong("log-format", fmt.Errorf("%q: want text or json", o.logFormat))
	return nil, errs.join()
}

// quiet drops what libraries find worth saying in good times, unless the level
// is debug.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, level) && (level >= slog.LevelWarn || q.Handler.Enabled(ctx, slog.LevelDebug))
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }
func (q quiet) WithGroup(name string) slog.Handler       { return quiet{q.Handler.WithGroup(name)} }

// newRecorder makes Events in the name of a component of the control plane.
func newRecorder(ctx context.Context, client kubernetes.Interface, component string) record.EventRecorder {
	return events.NewRecorder(ctx, client, corev1.EventSource{Component: component})
}

// agentComponent is who the Events of agents are from.
const agentComponent = "lighter-agent"

// announce tells systemd and people that the daemon is ready.
func announce(log *slog.Logger, started time.Time, what string) {
	log.Info(what+" is ready", "after", time.Since(started).Round(time.Millisecond))
	if err := sdNotify(notifyReady); err != nil {
		log.Warn("systemd was not told that the daemon is ready", "error", err)
	}
}

// flagErrors collects what is wrong with flags, to report it all at once.
type flagErrors []error

// wrong adds what is wrong with a flag, if err says that something is.
func (e *flagErrors) wrong(flag string, err error) {
	if err != nil {
		*e = append(*e, usageError{fmt.Errorf("--%s: %w", flag, err)})
	}
}

func (e flagErrors) join() error { return errors.Join(e...) }

// splitList reads a flag value that people write with or without blanks.
func splitList(values []string) []string {
	var out []string
	for _, value := range values {
		if value = strings.TrimSpace(value); value != "" {
			out = append(out, value)
		}
	}
	return out
}
