package main

import (
	"strings"
	"testing"
)

// TestExecLine: Docker's lines become kubectl's, and kubectl's stay as they are.
func TestExecLine(t *testing.T) {
	for line, want := range map[string]string{
		"exec web ls -l /":                     "exec web -- ls -l /",
		"exec -it web sh":                      "exec -it web -- sh",
		"exec -n shop -it web sh -c x -- y":    "exec -n shop -it web -- sh -c x -- y",
		"exec --namespace=shop web/main env":   "exec --namespace=shop web/main -- env",
		"exec -c main web env":                 "exec -c main web -- env",
		"exec -it web -- sh":                   "",
		"exec web -it -c main -- sh":           "",
		"exec web -it":                         "",
		"exec web":                             "",
		"exec":                                 "",
		"exec --help":                          "",
		"exec --nosuch web sh":                 "",
		"exec -f pod.yaml -- ls":               "",
		"exec --stdin --tty web -- sh -c true": "",
	} {
		if want == "" {
			want = line
		}
		if got := strings.Join(execLine(strings.Fields(line)), " "); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
