package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"lighter.dev/lighter/api/agentapi"
)

// Inspection is an image as "docker inspect" prints it: the fields that have a
// meaning here, by Docker's names.
type Inspection struct {
	ID string `json:"Id"`
	// Object is metadata.name of the Image that declares it, Namespace its
	// namespace.
	Object       string `json:",omitempty"`
	Namespace    string `json:",omitempty"`
	RepoTags     []string
	RepoDigests  []string
	Comment      string
	Created      string
	Author       string
	Architecture string
	Variant      string `json:",omitempty"`
	Os           string
	Size         int64
	Config       ocispec.ImageConfig
	RootFS       RootFS
	Descriptor   Descriptor
}

// RootFS are the layers of an image.
type RootFS struct {
	Type   string
	Layers []string
}

// Descriptor is the manifest for this platform.
type Descriptor struct {
	Digest string `json:"digest"`
}

// InspectOptions are the flags of "lighter inspect".
type InspectOptions struct {
	// Type is "image", "container" or "" for whatever has the name: a container
	// first, as Docker does.
	Type string
	// Format is "json" or a Go template; "" prints one JSON array.
	Format string
}

// Inspect prints what is known of images and of containers.
func (c *Cluster) Inspect(ctx context.Context, names []string, options InspectOptions) error {
	show := func(io.Writer, any) error { return nil }
	if options.Format != "" {
		var err error
		if show, err = shower(options.Format); err != nil {
			return err
		}
	}
	found := []any{}
	var errs []error
	for _, name := range names {
		one, err := c.inspect(ctx, name, options.Type)
		if err == nil {
			err = show(c.Out, one)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("inspect %s: %w", name, err))
			continue
		}
		found = append(found, one)
	}
	if options.Format == "" {
		encoder := json.NewEncoder(c.Out)
		encoder.SetIndent("", "    ")
		encoder.SetEscapeHTML(false)
		errs = append(errs, encoder.Encode(found))
	}
	return errors.Join(errs...)
}

func (c *Cluster) inspect(ctx context.Context, name, kind string) (any, error) {
	if kind != "image" && !c.alone() {
		pod, container, err := c.container(ctx, name)
		switch {
		case err == nil:
			return viewOf(pod, container), nil
		case kind == "container" || !notThere(err):
			return nil, err
		}
	}
	row, details, err := c.details(ctx, name)
	if err != nil {
		return nil, err
	}
	return inspection(row, details), nil
}

// notThere tells whether a name may still be that of an image: names of images
// are not all valid names of pods.
func notThere(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsForbidden(err)
}

// details asks an agent what is in an image.
func (c *Cluster) details(ctx context.Context, ref string) (Row, agentapi.ImageDetails, error) {
	row, err := c.find(ctx, ref)
	if err != nil {
		return row, agentapi.ImageDetails{}, err
	}
	if row.Object != "" {
		object, err := c.Object(row.Namespace, row.Object)
		if err != nil {
			return row, agentapi.ImageDetails{}, err
		}
		details, err := object.Details(ctx)
		return row, details, err
	}
	agent, err := c.Agent(row.Hosts[0])
	if err != nil {
		return row, agentapi.ImageDetails{}, err
	}
	if row.Name != "" {
		ref = row.Name
	}
	details, err := agent.Inspect(ctx, c.Namespace, ref)
	return row, details, err
}

func inspection(row Row, details agentapi.ImageDetails) Inspection {
	config := details.Config
	view := Inspection{
		ID: details.Digest, Object: row.Object, Namespace: row.Namespace,
		RepoTags: []string{}, RepoDigests: []string{},
		Author: config.Author, Architecture: config.Architecture, Variant: config.Variant, Os: config.OS,
		Size: details.Size, Config: config.Config, RootFS: RootFS{Type: config.RootFS.Type, Layers: []string{}},
		Descriptor: Descriptor{details.Manifest},
	}
	names := details.Names
	if len(names) == 0 && row.Name != "" {
		names = []string{row.Name}
	}
	for _, name := range names {
		view.RepoTags = append(view.RepoTags, shortName(name))
		view.RepoDigests = append(view.RepoDigests, familiar(name)[0]+"@"+details.Digest)
	}
	for _, id := range config.RootFS.DiffIDs {
		view.RootFS.Layers = append(view.RootFS.Layers, id.String())
	}
	if config.Created != nil {
		view.Created = config.Created.Format(time.RFC3339Nano)
	}
	if n := len(config.History); n > 0 {
		view.Comment = config.History[n-1].Comment
	}
	return view
}
