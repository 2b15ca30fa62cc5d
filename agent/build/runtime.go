package build

import (
	runc "github.com/containerd/go-runc"
)

// forceDelete kills before it deletes.
var forceDelete = &runc.DeleteOpts{Force: true}

// newRuntime drives the same OCI runtime, with the same state folder (the
// runtime's default), as the executor of RUN steps does.
func newRuntime(cfg Config) (*runc.Runc, error) {
	command, err := findRuntime(cfg.Runtime)
	if err != nil {
		return nil, err
	}
	return &runc.Runc{Command: command}, nil
}
