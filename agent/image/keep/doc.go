// Package keep holds in the cluster what the cluster made. No registry has the
// content of an Image object, so at least two hosts keep it, and each host that
// keeps it knows it by the object's names, whatever else its names mean there. When
// an Image is gone, so are its records, and its content with the next garbage
// collection.
//
//   - decide.go: what this host has to do, a function of what it sees.
//   - keeper.go: does it, one thing at a time.
//   - retry.go: when a fetch that failed is tried again.
//
// Every host decides for itself from the same objects: which one has to fetch is
// settled by rendezvous hashing, without a word between them. Two that see different
// things for a moment make a copy too many, never one too few.
package keep
