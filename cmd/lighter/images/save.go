package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/distribution/reference"
)

// saving is one image to write, under the names that were asked for: none if it was
// asked for by its digest.
type saving struct {
	row   Row
	names []string
}

// Save writes one archive of images to a file, or to Out if path is "" or "-", with
// the names that are asked for; a name without a tag means all of its tags, as with
// Docker. Nothing of the file is there if it fails.
func (c *Cluster) Save(ctx context.Context, refs []string, path string) (err error) {
	var images []saving
	for _, ref := range refs {
		rows, err := c.findAll(ctx, ref)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row.Digest == "" {
				return fmt.Errorf("%s has no content yet", row.title())
			}
			images = addSaving(images, row, ref)
		}
	}
	if path == "" || path == "-" {
		if file, ok := c.Out.(*os.File); ok {
			if _, terminal := terminalOf(file); terminal {
				return errors.New("an archive is not for a terminal: use -o FILE, or > FILE")
			}
		}
		return c.saveTo(ctx, c.Out, images)
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
	if err := errors.Join(c.saveTo(ctx, file, images), file.Chmod(0o600), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// findAll is find, but a name without a tag leads to each of its tags.
func (c *Cluster) findAll(ctx context.Context, ref string) ([]Row, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil || !reference.IsNameOnly(named) {
		found, err := c.find(ctx, ref)
		return []Row{found}, err
	}
	objects, err := c.objects(ctx, c.Namespace)
	if err != nil {
		return nil, err
	}
	if tags := tagsOf(union(objects, nil, ofNamespace), named.Name()); len(tags) > 0 {
		return tags, nil
	}
	rows, err := c.rows(ctx, false)
	if err != nil {
		return nil, err
	}
	if tags := tagsOf(rows, named.Name()); len(tags) > 0 {
		return tags, nil
	}
	found, err := pick(rows, ref) // the beginning of a digest may look like a name
	return []Row{found}, err
}

// tagsOf are the rows of a repository, one for each name.
func tagsOf(rows []Row, repository string) []Row {
	var tags []Row
	for _, row := range rows {
		if row.Name == "" || withoutTag(row.Name) != repository || slices.ContainsFunc(tags, func(t Row) bool { return t.Name == row.Name }) {
			continue
		}
		if newest, err := pick(rows, row.Name); err == nil {
			tags = append(tags, newest)
		}
	}
	return tags
}

// addSaving adds a row that a reference led to. Names of one object go together: its
// content is sent once.
func addSaving(images []saving, row Row, ref string) []saving {
	var names []string
	named, err := reference.ParseNormalizedNamed(ref)
	if _, pinned := named.(reference.Digested); err == nil && !pinned && row.Name != "" && withoutTag(row.Name) == named.Name() {
		names = []string{row.Name}
	} else if row.Object == "" {
		row.Name = ""
	}
	for i, image := range images {
		if image.row.Digest == row.Digest && image.row.Object == row.Object && image.row.Namespace == row.Namespace && (row.Object != "" || image.row.Name == row.Name) {
			images[i].names = slices.Compact(slices.Sorted(slices.Values(append(images[i].names, names...))))
			return images
		}
	}
	return append(images, saving{row, names})
}

// saveTo joins the archives that agents send, one for each image: they may be on
// different hosts.
func (c *Cluster) saveTo(ctx context.Context, w io.Writer, images []saving) error {
	merged := newMerger(w)
	for _, image := range images {
		if err := c.saveOne(ctx, merged, image); err != nil {
			return fmt.Errorf("save %s: %w", image.row.title(), err)
		}
	}
	return merged.close()
}

func (c *Cluster) saveOne(ctx context.Context, merged *merger, image saving) error {
	archive, err := c.content(ctx, image.row)
	if err != nil {
		return err
	}
	defer archive.Close()
	return merged.add(archive, image.names)
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
