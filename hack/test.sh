#!/usr/bin/env bash
# go test with a summary at the end: how many tests passed, which failed, and
# which were skipped and why. Arguments go to go test.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p bin
go build -o bin/testsum ./hack/testsum
# One package at a time for each CPU is go's default; root tests share the kernel.
go test -json "$@" | bin/testsum
