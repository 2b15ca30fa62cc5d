// Package agentapi is what an agent answers about the images and the disk of
// its host: the paths, their parameters and the documents on them. Peers of it are
// the API server, which passes on what the subresources of images and containers and
// nodes/proxy are asked, and clients on the agent's local sockets.
//
//	agentapi.go  documents
//	paths.go     paths and parameters
//	edits.go     what differs in a new image
//	containers.go  processes, changes, usage and signals of containers, and a client
//	client.go    a client of one agent
//	objects.go   a client of an Image object's subresources
//	stream.go    answers, errors and streams of progress
//
// Answers that take long (pull, push, import, commit) are streams of Progress,
// one JSON document a line; the last one has Done or Error set. A failure before
// the first line is a metav1.Status with its HTTP code.
package agentapi

import (
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one version of an image on one host.
type Image struct {
	// Names are the full names that lead to it, without digest.
	Names []string `json:"names,omitempty"`
	// Namespaces are those whose Image objects declare it; none if it was pulled.
	Namespaces []string `json:"namespaces,omitempty"`
	// Digest is what the names mean: of an index or of a manifest (OCI image-spec).
	Digest string `json:"digest"`
	// Size is the sum of its blobs on the host, in bytes: compressed layers.
	Size int64 `json:"size"`
	// Created is when it was made, as its configuration says.
	Created time.Time `json:"created,omitzero"`
	// Arrived is when it came to the host.
	Arrived time.Time `json:"arrived"`
	// Containers is how many containers of the host use it, stopped ones too.
	Containers int `json:"containers,omitempty"`
}

// ImageDetails is an Image with what is in it.
type ImageDetails struct {
	Image    `json:",inline"`
	Manifest string `json:"manifest"`
	// Config is the image's configuration, with history and rootfs.
	Config ocispec.Image `json:"config"`
	// Layers are in the order of Config.RootFS.DiffIDs.
	Layers []ocispec.Descriptor `json:"layers"`
}

// Progress is one line of a stream.
type Progress struct {
	// ID is the blob that the line is about, "" for the image as a whole.
	ID string `json:"id,omitempty"`
	// Status is for people, in Docker's words: "Downloading", "Mounted from …".
	Status string `json:"status,omitempty"`
	// Current and Total count bytes; Total 0 is unknown.
	Current int64 `json:"current,omitempty"`
	Total   int64 `json:"total,omitempty"`
	// Done is the result; the stream ends with it.
	Done *Result `json:"done,omitempty"`
	// Error is why it failed; the stream ends with it.
	Error string `json:"error,omitempty"`
}

// Result is what a stream's work made.
type Result struct {
	// Name is the full name that was pulled, pushed, imported or committed.
	Name   string `json:"name"`
	Digest string `json:"digest"`
	// Size is that of the compressed layers, in bytes.
	Size int64 `json:"size,omitempty"`
}

// Credential is a user's right at one registry, as Docker's configuration file
// keeps it. It travels in request bodies alone.
type Credential struct {
	// Host is the registry, "docker.io" or "host:port".
	Host          string `json:"host"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identityToken,omitempty"`
}

// Credentials is the request body of pulls and pushes.
type Credentials struct {
	Credentials []Credential `json:"credentials,omitempty"`
}

// Removed is what a removal or a prune took away.
type Removed struct {
	// Untagged are names, Deleted digests of which nothing is left.
	Untagged []string `json:"untagged,omitempty"`
	Deleted  []string `json:"deleted,omitempty"`
	// Reclaimed is the disk space that came free, in bytes.
	Reclaimed int64 `json:"reclaimed"`
}

// Usage is what lies on a host's disk on account of images, containers and builds.
type Usage struct {
	Node string `json:"node"`
	// Rows are in the order of Docker's table: Images, Containers, Build Cache.
	Rows []UsageRow `json:"rows"`
	// Capacity and Free are the file system's that holds them, in bytes.
	Capacity int64 `json:"capacity"`
	Free     int64 `json:"free"`
}

// UsageRow is one sort of things on the disk.
type UsageRow struct {
	Type string `json:"type"`
	// Total and Active count things; Size and Reclaimable are bytes.
	Total       int   `json:"total"`
	Active      int   `json:"active"`
	Size        int64 `json:"size"`
	Reclaimable int64 `json:"reclaimable"`
}
