package build

import (
	"maps"
	"slices"
	"testing"
)

// TestHubNames: only names that have Docker Hub's host in front are its own.
func TestHubNames(t *testing.T) {
	const base = "docker.io/library/base:latest"
	for _, test := range []struct {
		name, file string
		opts       map[string]string
		want       []string
	}{
		{"without a host", "FROM base\nFROM base:v1\nFROM team/base\nFROM scratch\n", nil, nil},
		{"another host", "FROM registry.example/docker.io/base\nFROM localhost:5000/base\n", nil, nil},
		{"the host", "FROM docker.io/base\nFROM docker.io/team/app:v1 AS app\nFROM app\n", nil, []string{base, "docker.io/team/app:v1"}},
		{"the host's older name", "FROM index.docker.io/library/base\n", nil, []string{base}},
		{"a variable", "ARG HOST=docker.io\nARG NAME=$HOST/base\nFROM ${NAME}\n", nil, []string{base}},
		{"a variable that the build sets", "ARG HOST\nFROM ${HOST}/base\n", map[string]string{"build-arg:HOST": "docker.io"}, []string{base}},
		{"a variable that the build sets anew", "ARG HOST=docker.io/\nFROM ${HOST}base\n", map[string]string{"build-arg:HOST": ""}, nil},
		{"one that the Dockerfile does not have", "FROM ${HOST}base\n", map[string]string{"build-arg:HOST": "docker.io/"}, nil},
		{"the platform", "FROM docker.io/base:$TARGETARCH\n", map[string]string{"platform": "linux/arm64"}, []string{"docker.io/library/base:arm64"}},
		{"copied from", "FROM scratch\nCOPY --from=docker.io/base / /\n", nil, []string{base}},
		{"mounted", "FROM scratch\nRUN --mount=from=docker.io/base,target=/x true\nRUN --mount=type=cache,target=/y true\n", nil, []string{base}},
		{"no Dockerfile", "FRUM docker.io/base\n", nil, nil},
	} {
		got := slices.Sorted(maps.Keys(hubNames([]byte(test.file), test.opts)))
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
