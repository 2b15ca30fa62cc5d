// Package replicaset keeps as many pods alive as each ReplicaSet asks for.
//
// plan.go decides (pure), replicaset.go watches and acts, act.go
// creates and deletes pods, status.go computes the status (pure), rank.go orders
// pods for deletion (pure), expect.go remembers writes that the cache does not
// show yet.
//
// Two things keep a slow cache or a killed process from making pods twice:
// in-process expectations, and pod names that are derived from the ReplicaSet's
// UID, its resource version and a counter. A second process (or a second pass)
// that works from the same stale state tries the same names, and the API
// server refuses them.
//
// Writes: pods (create, delete, owner references), replicasets/status. It is
// the only writer of a ReplicaSet's status.
package replicaset
