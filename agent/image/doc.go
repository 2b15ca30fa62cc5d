// Package image keeps the container images of one host: it pulls, unpacks,
// names, shares and removes them. The work is done by containerd's libraries
// in this process (no daemon): a content store of OCI blobs by digest, a bbolt
// database of names, labels and leases, and a snapshotter of unpacked layers.
//
// How to find your way:
//
//   - temporary.go says where libraries mount things for a moment, and clears it.
//   - store.go opens and closes the Store; snapshotter.go picks the driver, of which
//     package btrfs below is one.
//   - name.go turns what a user writes into the full name of a reference.
//   - ensure.go decides how a request is answered (local, peers, registry);
//     plan.go holds the rules alone; pull.go moves the bytes and unpacks.
//   - scope.go says which namespace may use what the cluster built.
//   - turn.go has one host of many fetch a blob from its registry for all;
//     neighbours.go asks whose turn it is.
//   - peer.go asks other agents, registry.go asks registries (stall.go ends what
//     stands still, refusal.go explains what they answer), serve.go is what other
//     agents ask.
//   - cargo.go and push.go send an image to a registry.
//   - container.go gives a container its file system and takes it back; commit.go,
//     commit_layer.go and podconfig.go make an image of one.
//   - record.go, list.go, archive.go and rootfs.go: names, what is here, import and save.
//   - lookup.go, describe.go, remove.go, usage.go and api.go answer package hostapi:
//     what users ask of the host's images.
//   - damage.go finds what the disk changed.
//   - gc.go removes what nothing refers to; holdings.go says what is here of the
//     cluster's own images, for package keep below, which holds them in the cluster;
//     package reclaim below keeps the disk from getting full.
//
// What keeps content: an image record (a name), a container's lease, the lease
// of a running pull, or BuildKit's leases (package build shares this store).
// Everything else is removed by the next garbage collection. Blobs refer to
// their children by containerd.io/gc.ref.content labels, image configurations
// to their top snapshot by containerd.io/gc.ref.snapshot.<driver>.
package image
