#!/usr/bin/env bash
# Everything about the tree that can be checked without running it, apart from
# the linter (make lint): format, vet, fences, generated code, go.mod.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf -- '--- %s\n' "$*"; }

step gofmt
unformatted=$(git ls-files -z '*.go' | xargs -0 gofmt -l)
if [[ -n $unformatted ]]; then
	printf 'not formatted (gofmt -w):\n%s\n' "$unformatted" >&2
	exit 1
fi

step go vet
go vet ./...

step fences and dependencies
go test -count=1 ./hack/fence

step generated code
before=$(git status --porcelain -- api)
hack/codegen.sh
if [[ $(git status --porcelain -- api) != "$before" ]]; then
	git --no-pager diff --stat -- api >&2
	echo "generated code is out of date: commit what hack/codegen.sh wrote" >&2
	exit 1
fi

step go.mod is tidy
go mod tidy -diff

echo verified
