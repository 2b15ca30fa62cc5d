#!/usr/bin/env bash
# Runs tests under the race detector, on every package that can be built with it
# in bearable time: those that pull in the API server's registries, BuildKit's
# solver or etcd's server take ten minutes and more to compile with -race, and
# theirs are not our races. The list is computed, so that it is never out of date.
set -euo pipefail
cd "$(dirname "$0")/.."

heavy='^(k8s\.io/kubernetes/pkg/(registry|controlplane)/|github\.com/moby/buildkit/(solver|control|worker|executor)|go\.etcd\.io/etcd/server/)'

mapfile -t packages < <(
	go list -test -f '{{if not .Error}}{{.ImportPath}}{{range .Deps}} {{.}}{{end}}{{end}}' ./... |
		grep -v '^lighter.dev/lighter/cmd/lighter/e2e' |
		awk -v heavy="$heavy" '
			# With -test a package stands there several times; "p.test" has all that its tests need.
			$1 ~ /\.test$/ {
				bad = 0
				for (i = 2; i <= NF; i++) if ($i ~ heavy) { bad = 1; break }
				if (!bad) print substr($1, 1, length($1) - 5)
			}'
)
echo "${#packages[@]} packages under the race detector"
CGO_ENABLED=1 exec hack/test.sh -race "${packages[@]}"
