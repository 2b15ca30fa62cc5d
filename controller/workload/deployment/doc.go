// Package deployment rolls Deployments out: it makes one ReplicaSet for each
// pod template and shifts replicas from the old ones to the new one.
//
// step.go decides (pure): from a Deployment, its ReplicaSets and the images it
// names, to the ReplicaSets to create, change and remove and the status to
// write. rolling.go and scale.go are its arithmetic, revision.go the new
// ReplicaSet and the history, conditions.go the status. deployment.go watches,
// act.go writes.
//
// # Pinned images
//
// A container image may name a tag of an Image object in the Deployment's
// namespace. Then its pods must run the digest that the Image has, must keep it
// when they restart, must roll when it changes, and must return to the old one
// on a rollback. So the template of the ReplicaSet (not the Deployment's own)
// carries the annotation lighter.dev/digests, which is part of its identity:
// a new digest is a new template, hence a new revision (pins.go, images.go).
//
// A pin in the Deployment's own template is explicit. It gets there by
// "kubectl rollout undo", which copies the template of the old ReplicaSet, and
// is obeyed until the Image is built again.
//
// Writes: replicasets (create, spec.replicas, spec.minReadySeconds,
// annotations, delete, owner references), deployments/status, the Deployment's
// annotations deployment.kubernetes.io/revision and
// lighter.dev/observed-digests, and removes overtaken explicit pins from
// spec.template.
package deployment
