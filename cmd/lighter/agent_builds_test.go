package main

import (
	"strings"
	"testing"

	"lighter.dev/lighter/agent/build"
)

func TestBuildLimits(t *testing.T) {
	for _, test := range []struct {
		options      buildOptions
		memory, cpus int64
		wrong        []string
	}{
		{buildOptions{}, 0, 0, nil},
		{buildOptions{memory: "2Gi", cpus: "1.5", parallelism: 3}, 2 << 30, 1500, nil},
		{buildOptions{memory: "0", cpus: "0"}, 0, 0, nil},
		{buildOptions{memory: "lots", cpus: "-1", parallelism: -1}, 0, 0, []string{"--build-memory", "--build-cpus", "--build-parallelism"}},
		{buildOptions{memory: "1Mi", cpus: "1m"}, 0, 0, []string{"16Mi", "0.01"}},
	} {
		var got build.Config
		err := test.options.apply(&got)
		if (err == nil) != (test.wrong == nil) {
			t.Errorf("%+v: %v", test.options, err)
		}
		for _, want := range test.wrong {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", test.options, err, want)
			}
		}
		if err == nil && (got.Memory != test.memory || got.MilliCPUs != test.cpus || got.Parallelism != test.options.parallelism) {
			t.Errorf("%+v: %+v", test.options, got)
		}
	}
}
