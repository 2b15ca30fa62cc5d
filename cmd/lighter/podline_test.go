package main

import (
	"strings"
	"testing"
)

// TestPodLine: Docker's lines become kubectl's, and kubectl's stay as they are. "www"
// is what the user calls the pod "web" by now.
func TestPodLine(t *testing.T) {
	for line, want := range map[string]string{
		"exec web ls -l /":                     "exec web -- ls -l /",
		"exec -it web sh":                      "exec -it web -- sh",
		"exec -n shop -it web sh -c x -- y":    "exec -n shop -it web -- sh -c x -- y",
		"exec --namespace=shop web/main env":   "exec --namespace=shop web/main -- env",
		"exec -c main web env":                 "exec -c main web -- env",
		"exec www ls www":                      "exec web -- ls www",
		"exec www -c www -- ls www":            "exec web -c www -- ls www",
		"logs www":                             "logs web",
		"logs -c www -f www --tail 3":          "logs -c www -f web --tail 3",
		"logs www www":                         "logs web www",
		"-n shop logs www":                     "-n shop logs web",
		"attach -it www":                       "attach -it web",
		"cp www:/www www":                      "cp web:/www www",
		"cp ./www -c www www:www":              "cp ./www -c www web:www",
		"cp shop/www:/www .":                   "",
		"logs pod/www":                         "",
		"logs -l app=www":                      "",
		"get pods www":                         "",
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
		got := strings.Fields(line)
		if verb, at := arguments(got, configFlags()); len(at) > 0 {
			got = rewrite(got, verb, at, func(name string) string {
				if name == "www" {
					return "web"
				}
				return name
			})
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
