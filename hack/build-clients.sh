#!/usr/bin/env bash
# Makes BuildKit's clients for tests: bin/buildctl, its own, and bin/docker-buildx,
# Docker's, which also runs by itself. They are of the BuildKit that Lighter builds
# with, so most of their packages are compiled already. They need some modules that
# Lighter does not: those stay out of go.mod. What is there already is kept.
set -euo pipefail
cd "$(dirname "$0")/.."

buildkit=$(go list -m -f '{{.Version}}' github.com/moby/buildkit)
buildx=v0.38.2 # the release that is made of BuildKit v0.34.2; change both together

# client PROGRAM PACKAGE VERSION VARIABLE QUESTION: the linker writes the version to
# the variable, and the program tells it when asked.
client() {
	local program=bin/$1 package=$2 version=$3
	if [[ -x $program ]] && "$program" "$5" | grep -qF "$version"; then
		return
	fi
	echo "building $program"
	cp go.mod "$work/go.mod"
	cp go.sum "$work/go.sum"
	go get -modfile="$work/go.mod" "$package@$version" 2> "$work/log" || { cat "$work/log" >&2 && return 1; }
	go build -modfile="$work/go.mod" -ldflags "-s -w -X $4=$version" -o "$program" "$package"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p bin
export CGO_ENABLED=0
client buildctl github.com/moby/buildkit/cmd/buildctl "$buildkit" github.com/moby/buildkit/version.Version --version
client docker-buildx github.com/docker/buildx/cmd/buildx "$buildx" github.com/docker/buildx/version.Version version
