package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

// Load makes an Image object of each name in an archive. path "" or "-" is
// standard input.
func (c *Cluster) Load(ctx context.Context, path string, quiet bool) error {
	file, name, done, err := c.openSeekable(path)
	if err != nil {
		return err
	}
	defer done()
	found, err := readArchive(file)
	if err != nil {
		return fmt.Errorf("load %s: %w", name, err)
	}
	for _, image := range found {
		if err := c.loadOne(ctx, file, name, image, quiet); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

// loadOne sends an image under its first name; its other names are tags of that.
func (c *Cluster) loadOne(ctx context.Context, file *os.File, name string, image archived, quiet bool) error {
	if len(image.names) == 0 {
		return fmt.Errorf("image %s has no name in it: give it one by \"lighter import %s NAME\"", short(image.id), name)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	result, err := c.send(ctx, file, sending{tag: image.names[0], archive: name, ref: image.names[0], quiet: quiet})
	if err != nil {
		return err
	}
	for i, tag := range image.names {
		if i > 0 {
			if err := c.tag(ctx, Row{Name: result.Name, Digest: result.Digest}, tag); err != nil {
				return err
			}
		}
		fmt.Fprintln(c.Out, "Loaded image:", tag)
	}
	return nil
}

// Import makes an image of an archive with a root file system, or of one with a
// single image, under a name.
func (c *Cluster) Import(ctx context.Context, path, tag string, edits agentapi.Edits, quiet bool) error {
	file, name, err := c.open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	result, err := c.send(ctx, file, sending{tag: tag, archive: name, edits: edits, quiet: quiet})
	if err != nil {
		return fmt.Errorf("import %s: %w", name, err)
	}
	fmt.Fprintln(c.Out, result.Digest)
	return nil
}

// sending is what archive becomes the content of which name.
type sending struct {
	tag, archive string
	// ref chooses one image of an archive that holds several.
	ref   string
	edits agentapi.Edits
	quiet bool
}

// send declares a name and sends its content. An object that was made for it and
// gets none is taken away again.
func (c *Cluster) send(ctx context.Context, file *os.File, what sending) (agentapi.Result, error) {
	made, err := c.declare(ctx, what.tag, v1alpha1.ImageSource{Archive: &v1alpha1.ArchiveSource{Name: filepath.Base(what.archive)}})
	if err != nil {
		return agentapi.Result{}, err
	}
	object, err := c.Object(c.Namespace, made.object.Name)
	if err != nil {
		return agentapi.Result{}, err
	}
	result, err := c.follow(what.quiet, func(report func(agentapi.Progress)) (agentapi.Result, error) {
		archive := &upload{Reader: file, name: filepath.Base(what.archive), total: sizeOf(file), report: report}
		return object.SendContent(ctx, archive, what.ref, what.edits, report)
	})
	if err != nil {
		c.giveUp(ctx, made)
	}
	return result, err
}

// open opens a file, or standard input.
func (c *Cluster) open(path string) (file *os.File, name string, err error) {
	if path != "" && path != "-" {
		file, err = os.Open(path)
		return file, path, err
	}
	file, ok := c.In.(*os.File)
	if !ok {
		return nil, "", errors.New("standard input is no file")
	}
	if _, terminal := terminalOf(file); terminal {
		return nil, "", errors.New("standard input is a terminal: name a file, or send an archive with | or <")
	}
	return file, "stdin", nil
}

// openSeekable is open for those who have to read twice: a pipe is kept in a
// temporary file, which done removes.
func (c *Cluster) openSeekable(path string) (file *os.File, name string, done func(), err error) {
	file, name, err = c.open(path)
	if err != nil {
		return nil, "", nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err == nil {
		return file, name, func() { file.Close() }, nil
	}
	defer file.Close()
	spool, err := os.CreateTemp("", "lighter-load-*.tar")
	if err != nil {
		return nil, "", nil, err
	}
	done = func() { spool.Close(); os.Remove(spool.Name()) }
	if _, err = io.Copy(spool, file); err == nil {
		_, err = spool.Seek(0, io.SeekStart)
	}
	if err != nil {
		done()
		return nil, "", nil, fmt.Errorf("read %s: %w", name, err)
	}
	return spool, name, done, nil
}

// sizeOf is a file's size in bytes; 0 if it is a pipe.
func sizeOf(file *os.File) int64 {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}
