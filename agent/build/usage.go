package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/buildkit/client"

	"lighter.dev/lighter/api/agentapi"
)

// Usage measures the build cache: what images do not share with it. A host that
// never built has none, and BuildKit is not started to find that out.
func (b *Builder) Usage(ctx context.Context) (agentapi.UsageRow, error) {
	row := agentapi.UsageRow{Type: "Build Cache"}
	if _, err := os.Stat(filepath.Join(b.cfg.Root, cacheFile)); os.IsNotExist(err) {
		return row, nil
	}
	e, leave, err := b.enter()
	if err != nil {
		return row, err
	}
	defer leave()
	records, err := e.worker.DiskUsage(ctx, client.DiskUsageInfo{})
	if err != nil {
		return row, fmt.Errorf("measure build cache: %w", err)
	}
	for _, r := range records {
		row.Total++
		if r.InUse {
			row.Active++
		}
		if r.Shared {
			continue
		}
		row.Size += r.Size
		if !r.InUse {
			row.Reclaimable += r.Size
		}
	}
	return row, nil
}
