package build

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"

	"lighter.dev/lighter/api/v1alpha1"
)

// maxDockerfile bounds a Dockerfile on standard input, in bytes: an Image object
// keeps it.
const maxDockerfile = 256 << 10

// Context is what is to be built.
type Context struct {
	// Source and Dockerfile are what the Image object says.
	Source     v1alpha1.ImageSource
	Dockerfile string
	// Dir is the folder to send; "" if the builder gets the context itself.
	Dir string
	// DockerfileDir and File lead to the Dockerfile on this machine, if it is
	// not Dockerfile in Dir.
	DockerfileDir, File string

	temporary []string
}

// Close removes what was unpacked or downloaded.
func (c *Context) Close() error {
	var errs []error
	for _, dir := range c.temporary {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// Open finds out what an argument of "docker build" means: a folder, the URL of
// a Git repository ("…/shop.git#branch:folder") or of an archive or Dockerfile,
// or "-" for one of these on standard input. file is the flag -f: "" is
// Dockerfile in the context, "-" is standard input. The caller closes the result.
func Open(ctx context.Context, argument, file string, stdin io.Reader) (*Context, error) {
	c := &Context{Dockerfile: file}
	if err := c.open(ctx, argument, file, stdin); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Context) open(ctx context.Context, argument, file string, stdin io.Reader) error {
	if argument == "-" {
		if file == "-" {
			return errors.New("standard input cannot be both the context and the Dockerfile")
		}
		return c.fromStream(stdin, "-")
	}
	if info, err := os.Stat(argument); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is a file: give the folder to build, or the file to standard input (lighter build - < %s)", argument, argument)
		}
		return c.fromFolder(argument, file, stdin)
	}
	if git, ok, err := dfgitutil.ParseGitRef(argument); ok && err == nil {
		return c.fromGit(git, file)
	} else if ok {
		return fmt.Errorf("repository %s: %w", argument, err)
	}
	if u, err := url.Parse(argument); err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		return c.fromURL(ctx, argument)
	}
	return fmt.Errorf("build context %s: there is no such folder", argument)
}

// fromFolder is the usual case. The Image names the folder by its full path.
func (c *Context) fromFolder(dir, file string, stdin io.Reader) error {
	full, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	c.Dir, c.Source.Path = full, full
	switch file {
	case "":
		return nil
	case "-":
		text, err := readDockerfile(stdin)
		if err != nil {
			return err
		}
		c.Dockerfile = ""
		return c.writeDockerfile(text)
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && !filepath.IsAbs(file) {
		if inside := filepath.Join(full, file); exists(inside) {
			path = inside
		}
	}
	if inside, err := filepath.Rel(full, path); err == nil && filepath.IsLocal(inside) {
		c.Dockerfile = filepath.ToSlash(inside)
		return nil
	}
	c.DockerfileDir, c.File = filepath.Dir(path), filepath.Base(path)
	c.Dockerfile = c.File
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// fromGit lets the builder clone.
func (c *Context) fromGit(git *dfgitutil.GitRef, file string) error {
	remote := git.Remote
	if git.IndistinguishableFromLocal {
		remote = "https://" + remote
	}
	if file == "-" {
		return errors.New("-f -: the Dockerfile of a repository has to be in the repository")
	}
	c.Source.Git = &v1alpha1.GitSource{URL: remote, Ref: git.Ref, Path: git.SubDir}
	c.Dockerfile = filepath.ToSlash(file)
	return nil
}

// fromURL downloads an archive or a Dockerfile.
func (c *Context) fromURL(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("download build context: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("download build context %s: %s (a Git repository's URL has to end in .git)", address, resp.Status)
	}
	return c.fromStream(resp.Body, address)
}

// fromStream tells an archive of a context from a Dockerfile that needs no files.
func (c *Context) fromStream(in io.Reader, name string) error {
	buffered := bufio.NewReaderSize(in, blockSize)
	start, err := buffered.Peek(blockSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read build context: %w", err)
	}
	if isArchive(start) {
		dir, err := c.makeTemporary()
		if err != nil {
			return err
		}
		c.Dir, c.Source.Path = dir, name
		return unpack(buffered, dir)
	}
	if c.Dockerfile != "" {
		return fmt.Errorf("-f %s: what was sent is a Dockerfile itself, not an archive that has one", c.Dockerfile)
	}
	text, err := readDockerfile(buffered)
	if err != nil {
		return err
	}
	if c.Dir, err = c.makeTemporary(); err != nil {
		return err
	}
	c.Source.Inline = string(text)
	return c.writeDockerfile(text)
}

func readDockerfile(in io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(in, maxDockerfile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read Dockerfile: %w", err)
	case len(text) > maxDockerfile:
		return nil, fmt.Errorf("the Dockerfile on standard input is larger than %d KiB", maxDockerfile>>10)
	case len(bytes.TrimSpace(text)) == 0:
		return nil, errors.New("standard input is empty: it should be a Dockerfile or a tar archive")
	case bytes.IndexByte(text, 0) >= 0:
		return nil, errors.New("standard input is neither a Dockerfile nor a tar archive (plain, gzip, bzip2 or zstd)")
	}
	return text, nil
}

// writeDockerfile gives a Dockerfile that came by a stream a folder of its own.
func (c *Context) writeDockerfile(text []byte) error {
	dir, err := c.makeTemporary()
	if err != nil {
		return err
	}
	c.DockerfileDir, c.File = dir, v1alpha1.DefaultDockerfile
	return os.WriteFile(filepath.Join(dir, c.File), text, 0o600)
}

func (c *Context) makeTemporary() (string, error) {
	dir, err := os.MkdirTemp("", "lighter-build-")
	if err != nil {
		return "", err
	}
	c.temporary = append(c.temporary, dir)
	return dir, nil
}

// describe is the source in a form that is the same each time, for the name of
// an image that was given none.
func (c *Context) describe() string {
	s := c.Source
	parts := []string{s.Path, s.Inline, c.Dockerfile}
	if s.Git != nil {
		parts = append(parts, s.Git.URL, s.Git.Ref, s.Git.Path)
	}
	return strings.Join(parts, "\x00")
}
