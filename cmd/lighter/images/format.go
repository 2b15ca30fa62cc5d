package images

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"

	"github.com/docker/go-units"
)

// Format is how a list is printed.
type Format struct {
	// Template is "table", "json" (one document a line) or a Go template of
	// Line's fields; "" is a table.
	Template string
	// Quiet prints digests alone.
	Quiet bool
	// Digests shows whole digests, Full everything in its full length.
	Digests, Full bool
	// Now is what ages count from.
	Now time.Time
}

// Line is one image for templates and JSON, with Docker's field names.
type Line struct {
	Namespace    string `json:"Namespace,omitempty"`
	Object       string `json:"Object,omitempty"`
	Repository   string
	Tag          string
	ID           string
	Digest       string
	CreatedSince string
	CreatedAt    string
	Size         string
	Bytes        int64
	Hosts        []string
	Containers   int
}

func (f Format) line(row Row) Line {
	line := Line{
		Namespace: row.Namespace, Object: row.Object, Repository: row.repository(), Tag: row.tag(),
		ID: short(row.Digest), Digest: row.Digest, Size: size(row.Size), Bytes: row.Size,
		CreatedSince: age(row.Created, f.Now), Hosts: row.Hosts, Containers: row.Containers,
	}
	if !row.Created.IsZero() {
		line.CreatedAt = row.Created.Format(time.RFC3339)
	}
	if f.Full || f.Digests {
		line.ID = row.Digest
	}
	return line
}

// renderer is how rows are printed; an error is the user's.
func (f Format) renderer(namespaces bool) (func(io.Writer, []Row) error, error) {
	switch {
	case f.Quiet:
		return f.digests, nil
	case f.Template == "" || f.Template == "table":
		return func(w io.Writer, rows []Row) error { return f.table(w, rows, namespaces) }, nil
	}
	show, err := shower(f.Template)
	if err != nil {
		return nil, err
	}
	return func(w io.Writer, rows []Row) error {
		for _, row := range rows {
			if err := show(w, f.line(row)); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// digests prints each digest once.
func (f Format) digests(w io.Writer, rows []Row) error {
	seen := map[string]bool{}
	for _, row := range rows {
		if seen[row.Digest] {
			continue
		}
		seen[row.Digest] = true
		if _, err := fmt.Fprintln(w, f.line(row).ID); err != nil {
			return err
		}
	}
	return nil
}

// shower prints one value by --format: "json", or a Go template with Docker's
// functions json, join, lower, upper and split.
func shower(format string) (func(io.Writer, any) error, error) {
	if format == "json" {
		return func(w io.Writer, value any) error { return json.NewEncoder(w).Encode(value) }, nil
	}
	parsed, err := template.New("format").Funcs(template.FuncMap{
		"json": func(value any) (string, error) {
			text, err := json.Marshal(value)
			return string(text), err
		},
		"join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper, "split": strings.Split,
	}).Parse(format)
	if err != nil {
		return nil, fmt.Errorf("--format: want table, json or a Go template: %w", err)
	}
	return func(w io.Writer, value any) error {
		if err := parsed.Execute(w, value); err != nil {
			return fmt.Errorf("--format: %w", err)
		}
		_, err := fmt.Fprintln(w)
		return err
	}, nil
}

// size is a number of bytes as Docker shows it: three digits, powers of 1000.
func size(bytes int64) string { return units.HumanSizeWithPrecision(float64(bytes), 3) }

// age is how long ago something was.
func age(then, now time.Time) string {
	if then.IsZero() {
		return "N/A"
	}
	return cmp.Or(units.HumanDuration(max(0, now.Sub(then))), "0 seconds") + " ago"
}
