// Package images is what "lighter images", "tag", "rmi", "pull", "push" and the
// other verbs do that people know from Docker. What the cluster made is an Image
// object in a namespace, what was pulled is a cache of hosts; see
// hack/decisions/0010-what-the-cluster-made-is-an-image-object.md. The verbs
// show both as one.
//
//   - cluster.go: the clients, and how all hosts are asked at once.
//   - rows.go: which names there are, from objects and hosts (pure).
//   - list.go, table.go, format.go: "images".
//   - find.go: from a name to one image, or what is near it.
//   - declare.go: Image objects for names; tag.go, archive.go (reads the index
//     of an archive), load.go, commit.go use it.
//   - remove.go, prune.go, usage.go: what goes, and how much room is taken.
//   - inspect.go, container.go, history.go: what is in an image or a container.
//   - save.go, merge.go: archives.
//   - pull.go, push.go: registries; display.go, hostbar.go: progress on the
//     terminal; prompt.go: questions on it.
//   - credentials.go, login.go, verify.go, pullsecret.go: who one is at a registry.
package images
