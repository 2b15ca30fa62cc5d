// Package model is what the scheduler knows of the cluster: nodes with what
// their pods use, kept up to date event by event.
//
// A Pod holds everything that a decision needs from a pod's specification,
// parsed once. A Cluster is changed only by its Set, Place and Remove methods
// and is not safe for concurrent use; package fit reads it and changes nothing,
// so a decision is a pure function of a Cluster and a Pod.
package model
