#!/usr/bin/env bash
# What a newcomer may try after "make up".
set -euo pipefail
cd "$(dirname "$0")/.."

kubeconfig=$(bin/lighter local kubeconfig --path)
cat << TEXT

A cluster of three hosts runs on this machine. Try:

  export KUBECONFIG=$kubeconfig
  bin/lighter get pods -o wide             # who runs where
  bin/lighter logs -f deploy/frontend      # every verb of kubectl works, and so does kubectl
  bin/lighter exec -it deploy/store -- sh

  # change app/frontend/cgi-bin/index.cgi, then build and roll out again:
  bin/lighter apply -f manifests/guestbook/

  bin/lighter local kill host-2            # a power loss: watch its pods move
  bin/lighter local start host-2
  bin/lighter local cut host-1 host-3      # a broken cable; heal mends it
  bin/lighter local exec host-3 -- nft list ruleset

  make down                                # removes all of it
TEXT
