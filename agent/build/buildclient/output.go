package buildclient

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	bkclient "github.com/moby/buildkit/client"
)

// Output is where else a result goes, besides the cluster's images.
type Output struct {
	// Type is local (a folder with the file system), tar (the same as an
	// archive), oci or docker (an archive of the image).
	Type string
	// Dest is a folder for local, a file for the others; "-" is standard output.
	Dest string
	// Attrs are the rest of what the user gave, for BuildKit.
	Attrs map[string]string
}

// ParseOutput reads --output as Docker has it: "type=tar,dest=FILE", or for
// short a folder, or "-" for an archive on standard output.
func ParseOutput(text string) (Output, error) {
	switch {
	case text == "":
		return Output{}, errors.New("want a folder, - or type=TYPE,dest=DEST")
	case text == "-":
		return Output{Type: bkclient.ExporterTar, Dest: "-"}, nil
	case !strings.Contains(text, "="):
		return Output{Type: bkclient.ExporterLocal, Dest: text}, nil
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return Output{}, fmt.Errorf("%q: %w", text, err)
	}
	out := Output{Attrs: map[string]string{}}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		switch {
		case !ok:
			return Output{}, fmt.Errorf("%q: want key=value", field)
		case strings.EqualFold(key, "type"):
			out.Type = value
		case strings.EqualFold(key, "dest"):
			out.Dest = value
		default:
			out.Attrs[strings.ToLower(key)] = value
		}
	}
	return out, out.check()
}

func (o Output) check() error {
	switch o.Type {
	case bkclient.ExporterLocal:
		if o.Dest == "" || o.Dest == "-" {
			return errors.New("type=local needs dest=FOLDER")
		}
	case bkclient.ExporterTar, bkclient.ExporterOCI, bkclient.ExporterDocker:
	case bkclient.ExporterImage, "registry":
		return fmt.Errorf("type=%s: -t names the image in the cluster, and --push sends it to its registry", o.Type)
	case "":
		return errors.New("type= is missing: local, tar, oci or docker")
	default:
		return fmt.Errorf("type=%s: want local, tar, oci or docker", o.Type)
	}
	return nil
}

// entry is the output in BuildKit's words. Nothing is written before the build
// has succeeded.
func (o Output) entry(stdout io.Writer) (bkclient.ExportEntry, error) {
	out := bkclient.ExportEntry{Type: o.Type, Attrs: o.Attrs}
	switch {
	case o.Type == bkclient.ExporterLocal:
		out.OutputDir = o.Dest
	case o.Dest == "" || o.Dest == "-":
		if stdout == nil || isTerminal(stdout) {
			return out, fmt.Errorf("output type=%s: an archive would make a mess of the terminal: give dest=FILE, or redirect standard output", o.Type)
		}
		out.Output = func(map[string]string) (io.WriteCloser, error) { return keepOpen{stdout}, nil }
	default:
		if info, err := os.Stat(filepath.Dir(o.Dest)); err != nil || !info.IsDir() {
			return out, fmt.Errorf("output %s: there is no folder %s", o.Dest, filepath.Dir(o.Dest))
		}
		out.Output = func(map[string]string) (io.WriteCloser, error) { return os.Create(o.Dest) }
	}
	return out, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// keepOpen is standard output, which others need after us.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }
