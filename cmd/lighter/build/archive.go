package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
)

// blockSize is that of tar(5): the magic number is in the first block.
const blockSize = 512

// magics are the beginnings of compressed archives.
var magics = [][]byte{
	{0x1f, 0x8b, 0x08},            // gzip
	[]byte("BZh"),                 // bzip2
	{0x28, 0xb5, 0x2f, 0xfd},      // zstd
	{0xfd, '7', 'z', 'X', 'Z', 0}, // xz
}

// isArchive tells a tar archive, compressed or not, by its first block.
func isArchive(start []byte) bool {
	for _, magic := range magics {
		if bytes.HasPrefix(start, magic) {
			return true
		}
	}
	return len(start) >= 263 && string(start[257:262]) == "ustar"
}

// unpack writes a tar archive into dir. Nothing that it holds can lead out of
// dir: names are resolved below it, symbolic links included.
func unpack(in io.Reader, dir string) error {
	plain, err := decompress(in)
	if err != nil {
		return fmt.Errorf("unpack build context: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // it was only a way to names
	archive := tar.NewReader(plain)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack build context: %w", err)
		}
		if err := extract(root, header, archive); err != nil {
			return fmt.Errorf("unpack build context: %s: %w", header.Name, err)
		}
	}
}

func decompress(in io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(in)
	start, err := buffered.Peek(6)
	switch {
	case err != nil:
		return nil, err
	case bytes.HasPrefix(start, magics[1]):
		return bzip2.NewReader(buffered), nil
	case bytes.HasPrefix(start, magics[3]):
		return nil, errors.New("xz is not read: unpack it first (xz -dc context.tar.xz | lighter build -)")
	}
	return compression.DecompressStream(buffered)
}

// extract writes one entry.
func extract(root *os.Root, header *tar.Header, body io.Reader) error {
	name := filepath.FromSlash(path.Clean(header.Name))
	if !filepath.IsLocal(name) {
		return errors.New("it leads out of the context")
	}
	mode := fs.FileMode(header.Mode).Perm()
	if name == "." {
		return nil
	}
	if parent := filepath.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	switch header.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(name, 0o755); err != nil {
			return err
		}
		return root.Chmod(name, mode)
	case tar.TypeReg:
		return extractFile(root, name, mode, header, body)
	case tar.TypeSymlink:
		return root.Symlink(header.Linkname, name)
	case tar.TypeLink:
		return root.Link(filepath.FromSlash(path.Clean(header.Linkname)), name)
	case tar.TypeXGlobalHeader:
		return nil // a comment, as "git archive" writes it
	}
	return errors.New("it is neither a file, a folder nor a link")
}

func extractFile(root *os.Root, name string, mode fs.FileMode, header *tar.Header, body io.Reader) error {
	file, err := root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, body)
	err = errors.Join(err, file.Close())
	if err != nil {
		return err
	}
	if err := root.Chmod(name, mode); err != nil {
		return err
	}
	return root.Chtimes(name, header.ModTime, header.ModTime)
}
