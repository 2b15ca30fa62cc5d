#!/usr/bin/env bash
# Installs the programs that Lighter runs, if they are missing, from the
# distribution's packages. With --test also those that only tests need.
# Where nothing is missing it changes nothing and needs neither root nor network.
set -euo pipefail

missing=()
# need PROGRAM PACKAGE: the package's name where the manager has no own column below.
need() { command -v "$1" > /dev/null 2>&1 || missing+=("$2"); }

export PATH=$PATH:/usr/sbin:/sbin

need crun crun # runs containers, in a third of runc's time
need runc runc # runs the steps of builds: crun lacks "run --keep" before 1.9
need conmon conmon
need nft nftables
need git git # builds from repositories
need busybox busybox-static
if [[ ${1:-} == --test ]]; then
	need iperf3 iperf3
	need docker-registry docker-registry
	need tcpdump tcpdump
	need dig dnsutils
	need debootstrap debootstrap
	need mkfs.btrfs btrfs-progs # the btrfs storage driver is tested on a file system in a file
	need gcc gcc # the race detector links with it
fi

if ! command -v go > /dev/null 2>&1; then
	echo "install-deps: Go is missing: see https://go.dev/dl/ for Go 1.26 or newer" >&2
	exit 1
fi
[[ ${#missing[@]} -gt 0 ]] || exit 0

sudo=()
if [[ $EUID -ne 0 ]]; then
	if ! command -v sudo > /dev/null 2>&1; then
		echo "install-deps: not root and no sudo: install yourself: ${missing[*]}" >&2
		exit 1
	fi
	sudo=(sudo)
fi

# rename FROM TO: the name a distribution has for a package.
rename() { missing=("${missing[@]/%$1/$2}"); }

echo "installing: ${missing[*]}"
if command -v apt-get > /dev/null 2>&1; then
	install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends)
	[[ ${missing[*]} != *gcc* ]] || missing+=(libc6-dev)
	# The lists may be old or absent: try as is, then with fresh ones.
	"${sudo[@]}" "${install[@]}" "${missing[@]}" > /dev/null 2>&1 || {
		"${sudo[@]}" apt-get update -q > /dev/null
		"${sudo[@]}" "${install[@]}" "${missing[@]}"
	}
	if [[ ${missing[*]} == *docker-registry* ]]; then
		# Tests start their own on a free port; no service is wanted.
		"${sudo[@]}" systemctl disable --now docker-registry > /dev/null 2>&1 || true
	fi
elif command -v dnf > /dev/null 2>&1; then
	rename dnsutils bind-utils
	rename busybox-static busybox
	"${sudo[@]}" dnf install -y -q "${missing[@]}"
elif command -v zypper > /dev/null 2>&1; then
	rename dnsutils bind-utils
	rename docker-registry distribution-registry
	rename btrfs-progs btrfsprogs
	"${sudo[@]}" zypper --non-interactive install "${missing[@]}"
elif command -v pacman > /dev/null 2>&1; then
	rename dnsutils bind
	rename busybox-static busybox
	"${sudo[@]}" pacman -S --needed --noconfirm "${missing[@]}"
elif command -v apk > /dev/null 2>&1; then
	rename dnsutils bind-tools
	"${sudo[@]}" apk add -q "${missing[@]}"
else
	echo "install-deps: unknown distribution: install yourself: ${missing[*]}" >&2
	exit 1
fi
