package build

import (
	"context"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"lighter.dev/lighter/agent/image"
)

// stagingStore is the image store that BuildKit sees. What it reads are the
// host's images; what its exporter writes is staged under another name, so
// that names move only when the whole build has succeeded.
type stagingStore struct {
	images.Store
	store *image.Store
}

func (s stagingStore) Get(ctx context.Context, name string) (images.Image, error) {
	return s.store.ResolveBase(ctx, name)
}

func (s stagingStore) List(ctx context.Context, filters ...string) ([]images.Image, error) {
	return s.Store.List(s.in(ctx), filters...)
}

func (s stagingStore) Create(ctx context.Context, img images.Image) (images.Image, error) {
	img.Name = image.StagingName(img.Name)
	got, err := s.Store.Create(s.in(ctx), img)
	return unstaged(got), err
}

func (s stagingStore) Update(ctx context.Context, img images.Image, fields ...string) (images.Image, error) {
	img.Name = image.StagingName(img.Name)
	got, err := s.Store.Update(s.in(ctx), img, fields...)
	return unstaged(got), err
}

func (s stagingStore) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	return s.Store.Delete(s.in(ctx), image.StagingName(name), opts...)
}

func (stagingStore) in(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, image.Namespace)
}

func unstaged(img images.Image) images.Image {
	img.Name = strings.TrimPrefix(img.Name, image.StagingName(""))
	return img
}
