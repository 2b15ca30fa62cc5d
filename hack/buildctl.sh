#!/usr/bin/env bash
# Makes bin/buildctl, BuildKit's own client, for tests: of the version that
# Lighter builds with, from the packages that are compiled already. It needs some
# modules that Lighter does not: they stay out of go.mod.
set -euo pipefail
cd "$(dirname "$0")/.."

package=github.com/moby/buildkit/cmd/buildctl
version=$(go list -m -f '{{.Version}}' github.com/moby/buildkit)
if [[ -x bin/buildctl ]] && bin/buildctl --version | grep -qF "$version"; then
	exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp go.mod "$work/buildctl.mod"
cp go.sum "$work/buildctl.sum"
export CGO_ENABLED=0
go get -modfile="$work/buildctl.mod" "$package@$version"
mkdir -p bin
go build -modfile="$work/buildctl.mod" -ldflags "-X github.com/moby/buildkit/version.Version=$version" -o bin/buildctl "$package"
