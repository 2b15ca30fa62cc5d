package containers

import (
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// HealthOptions are Docker's health check. As there, a container that fails it is
// only said to be unhealthy, and as everywhere here, no Service leads to it.
type HealthOptions struct {
	Command                        string
	Interval, Timeout, StartPeriod time.Duration
	Retries                        int32
	// None takes none, not the image's either, which is the rule here.
	None bool
}

// probe is nil if there is no check.
func (o HealthOptions) probe() (*corev1.Probe, error) {
	switch {
	case o.None && o.Command != "":
		return nil, errors.New("--health-cmd and --no-healthcheck contradict each other")
	case o.Command == "" && o != HealthOptions{None: o.None}:
		return nil, errors.New("--health-cmd is missing: the HEALTHCHECK of images is not run")
	case o.Command == "":
		return nil, nil
	case o.Interval < 0 || o.Timeout < 0 || o.StartPeriod < 0 || o.Retries < 0:
		return nil, errors.New("--health-interval, -timeout, -start-period and -retries: want no negative values")
	}
	seconds := func(d, otherwise time.Duration) int32 {
		if d == 0 {
			d = otherwise
		}
		return int32((d + time.Second - 1) / time.Second)
	}
	const perCheck, retries = 30 * time.Second, 3 // Docker's
	probe := &corev1.Probe{
		ProbeHandler:        corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "-c", o.Command}}},
		InitialDelaySeconds: seconds(o.StartPeriod, 0), PeriodSeconds: seconds(o.Interval, perCheck),
		TimeoutSeconds: seconds(o.Timeout, perCheck), FailureThreshold: o.Retries,
	}
	if probe.FailureThreshold == 0 {
		probe.FailureThreshold = retries
	}
	return probe, nil
}
