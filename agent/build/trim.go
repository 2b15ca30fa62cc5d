package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/buildkit/client"
)

// Trim removes from the build cache what BuildKit's own rules allow when the disk is
// short of room. BuildKit applies them after builds only. A host that never built has
// no cache, and BuildKit is not started to find that out.
func (b *Builder) Trim(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(b.cfg.Root, cacheFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	e, leave, err := b.enter()
	if err != nil {
		return fmt.Errorf("trim the build cache: %w", err)
	}
	defer leave()
	if err := e.prune(ctx, e.worker.GCPolicy()...); err != nil {
		return fmt.Errorf("trim the build cache: %w", err)
	}
	return nil
}

// prune removes what fits the rules from BuildKit's cache.
func (e *engine) prune(ctx context.Context, rules ...client.PruneInfo) error {
	gone := make(chan client.UsageInfo)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for range gone {
		}
	}()
	err := e.worker.Prune(ctx, gone, rules...)
	close(gone)
	<-drained
	return err
}
