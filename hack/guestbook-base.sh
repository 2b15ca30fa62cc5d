#!/usr/bin/env bash
# Puts a static busybox into the build context of the guestbook, whose images
# start FROM scratch. A busybox that needs shared libraries would not run there.
set -euo pipefail
cd "$(dirname "$0")/.."

target=manifests/guestbook/app/busybox
for candidate in "$(command -v busybox || true)" "$(command -v busybox-static || true)" /bin/busybox.static /usr/sbin/busybox; do
	[[ -x $candidate ]] || continue
	if ldd "$candidate" > /dev/null 2>&1; then
		continue # dynamic
	fi
	if ! cmp -s "$candidate" "$target"; then
		install -m 0755 "$candidate" "$target"
	fi
	exit 0
done
echo "guestbook-base: no static busybox found: install busybox-static (hack/install-deps.sh does)" >&2
exit 1
