package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Save writes one archive of images to a file, or to Out if path is "" or "-".
// Nothing of the file is there if it fails.
func (c *Cluster) Save(ctx context.Context, refs []string, path string) (err error) {
	var rows []Row
	for _, ref := range refs {
		row, err := c.find(ctx, ref)
		if err != nil {
			return err
		}
		if row.Digest == "" {
			return fmt.Errorf("%s has no content yet", ref)
		}
		rows = append(rows, row)
	}
	if path == "" || path == "-" {
		if file, ok := c.Out.(*os.File); ok {
			if _, terminal := terminalOf(file); terminal {
				return errors.New("an archive is not for a terminal: use -o FILE, or > FILE")
			}
		}
		return c.saveTo(ctx, c.Out, rows)
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	if err := errors.Join(c.saveTo(ctx, file, rows), file.Chmod(0o600), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// saveTo joins the archives that agents send, one for each image: they may be on
// different hosts.
func (c *Cluster) saveTo(ctx context.Context, w io.Writer, rows []Row) error {
	merged := newMerger(w)
	sent := map[string]bool{}
	for _, row := range rows {
		if sent[row.Object] {
			continue // an object's archive has all of its names
		}
		sent[row.Object] = row.Object != ""
		if err := c.saveOne(ctx, merged, row); err != nil {
			return fmt.Errorf("save %s: %w", row.title(), err)
		}
	}
	return merged.close()
}

func (c *Cluster) saveOne(ctx context.Context, merged *merger, row Row) error {
	archive, err := c.content(ctx, row)
	if err != nil {
		return err
	}
	defer archive.Close()
	return merged.add(archive)
}

func (c *Cluster) content(ctx context.Context, row Row) (io.ReadCloser, error) {
	if row.Object != "" {
		object, err := c.Object(row.Namespace, row.Object)
		if err != nil {
			return nil, err
		}
		return object.Content(ctx)
	}
	agent, err := c.Agent(row.Hosts[0])
	if err != nil {
		return nil, err
	}
	ref := row.Name
	if ref == "" {
		ref = row.Digest
	}
	return agent.Save(ctx, c.Namespace, ref)
}
