#!/usr/bin/env bash
# Makes a base image of the distribution that this machine runs, without any
# registry: debootstrap's smallest variant, from the package mirror and the suite
# in apt's own sources.
#
#   hack/debian-base.sh rootfs.tar                  only the archive
#   hack/debian-base.sh rootfs.tar debian:bookworm  imports it as that image, too
#
# LIGHTER names the binary for the import (default: bin/lighter). The exit code is
# 3 where it cannot work: a program is missing, or the mirror does not answer.
set -euo pipefail

fail() { echo "debian-base: $*" >&2; exit 1; }
cannot() { echo "debian-base: $*" >&2; exit 3; }

[[ $# -ge 1 && $# -le 2 ]] || fail "want an archive to write and, to import it, an image name"
archive=$1
name=${2:-}
export PATH=$PATH:/usr/sbin:/sbin

[[ $EUID -eq 0 ]] || cannot "needs root: debootstrap changes its root"
for program in debootstrap apt-get wget tar; do
	command -v "$program" > /dev/null 2>&1 || cannot "$program is missing: hack/install-deps.sh --test installs it"
done

# The first source with a component "main" of this release: not its updates.
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
read -r mirror suite < <(
	apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Identifier: Packages' |
		awk -v want="$codename" '$3 == "main" && (want == "" || $2 == want) { print $1, $2; exit }'
) || cannot "apt has no source with the packages of ${codename:-this release}: run apt-get update"

# debootstrap downloads by itself: it has to go where apt goes.
eval "$(apt-config shell proxy Acquire::http::Proxy)"
if [[ -n ${proxy:-} && ${proxy} != DIRECT ]]; then
	export http_proxy=$proxy
fi

mirror=${mirror%/}
wget -q -T 10 -t 2 -O /dev/null "$mirror/dists/$suite/InRelease" || cannot "the mirror in apt's sources does not answer for $suite"

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
echo "debian-base: $suite, smallest variant" >&2
if ! debootstrap --variant=minbase "$suite" "$work/root" "$mirror" > "$work/log" 2>&1; then
	tail -n 20 "$work/log" "$work/root/debootstrap/debootstrap.log" >&2 2> /dev/null || true
	fail "debootstrap failed, see above"
fi
# What can be fetched again is no part of a base image.
rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/* "$work"/root/var/log/bootstrap.log
tar -C "$work/root" --numeric-owner --one-file-system -cf "$archive" .
echo "debian-base: $archive, $(du -h "$archive" | cut -f1)" >&2

if [[ -n $name ]]; then
	exec "${LIGHTER:-$(dirname "$0")/../bin/lighter}" import "$archive" "$name"
fi
