package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"strings"
	"testing"

	"lighter.dev/lighter/api/agentapi"
)

// tarOf makes an archive of names and contents, in that order.
func tarOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for i := 0; i < len(files); i += 2 {
		err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1])), Typeflag: tar.TypeReg})
		if err == nil {
			_, err = w.Write([]byte(files[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func zipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := gzip.NewWriter(&buffer)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// indexOf is an index.json with one manifest for each pair of digest and
// annotation "key=value".
func indexOf(pairs ...string) string {
	var manifests []string
	for i := 0; i < len(pairs); i += 2 {
		key, value, _ := strings.Cut(pairs[i+1], "=")
		manifests = append(manifests, fmt.Sprintf(`{"digest":%q,"size":1,"annotations":{%q:%q}}`, pairs[i], key, value))
	}
	return `{"schemaVersion":2,"manifests":[` + strings.Join(manifests, ",") + `]}`
}

func TestReadArchive(t *testing.T) {
	const ref = "org.opencontainers.image.ref.name"
	a, b := digestOf('a'), digestOf('b')
	oci := tarOf(t, "oci-layout", "{}", "blobs/sha256/x", "x", "index.json", indexOf(a, annotationName+"=docker.io/library/shop:v1", b, ref+"=web:v2", a, annotationName+"=docker.io/library/shop:v2"))
	tests := []struct {
		name    string
		archive []byte
		want    string
		err     error
	}{
		{"OCI", oci, "[{" + a + " [docker.io/library/shop:v1 docker.io/library/shop:v2]} {" + b + " [web:v2]}]", nil},
		{"compressed", zipped(t, oci), "[{" + a + " [docker.io/library/shop:v1 docker.io/library/shop:v2]} {" + b + " [web:v2]}]", nil},
		{"a bare tag is no name", tarOf(t, "./index.json", indexOf(a, ref+"=latest")), "[{" + a + " []}]", nil},
		{"docker save", tarOf(t, "c.json", "{}", "manifest.json", `[{"Config":"c.json","RepoTags":["shop:v1","shop:v2"]},{"Config":"d.json","RepoTags":null}]`), "[{c.json [shop:v1 shop:v2]} {d.json []}]", nil},
		{"both lists", tarOf(t, "manifest.json", `[{"Config":"c.json","RepoTags":["shop:v1"]}]`, "index.json", indexOf(a, annotationName+"=shop:v1")), "[{" + a + " [shop:v1]}]", nil},
		{"a root file system", tarOf(t, "bin/sh", "x"), "[]", errNoIndex},
	}
	for _, test := range tests {
		got, err := readArchive(bytes.NewReader(test.archive))
		if fmt.Sprint(got) != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: %v, %v, want %s, %v", test.name, got, err, test.want, test.err)
		}
	}
	for name, broken := range map[string][]byte{
		"no archive": []byte(strings.Repeat("text", 1000)), "cut off": oci[:700], "bad index": tarOf(t, "index.json", "["),
	} {
		if _, err := readArchive(bytes.NewReader(broken)); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

func TestMerge(t *testing.T) {
	a, b, c := digestOf('a'), digestOf('b'), digestOf('c')
	var out bytes.Buffer
	m := newMerger(&out)
	for _, in := range []struct {
		archive []byte
		names   []string
	}{
		{tarOf(t, "oci-layout", "{}", "blobs/sha256/base", "base", "blobs/sha256/a", "a", "index.json", indexOf(a, annotationName+"=shop:v1", a, annotationName+"=shop:v2"),
			"manifest.json", `[{"Config":"a","RepoTags":["shop:v1","shop:v2"],"Layers":["base"]}]`), []string{"docker.io/library/shop:v2"}},
		{tarOf(t, "oci-layout", "{}", "blobs/sha256/base", "base", "index.json", indexOf(b, annotationName+"=web:v1"), "manifest.json", `[{"Config":"b","RepoTags":["web:v1"],"Layers":["base"]}]`),
			[]string{"docker.io/library/web:v1", "reg.example/web:v2"}},
		{tarOf(t, "index.json", indexOf(c, annotationName+"=empty:v1"), "manifest.json", `[{"Config":"c","RepoTags":["empty:v1"],"Layers":null}]`), nil},
	} {
		if err := m.add(bytes.NewReader(in.archive), in.names); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.close(); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(out.Bytes(), []byte("blobs/sha256/base")); n != 1 {
		t.Errorf("a shared blob is there %d times", n)
	}
	got, err := readArchive(bytes.NewReader(out.Bytes()))
	if want := "[{" + a + " [docker.io/library/shop:v2]} {" + b + " [docker.io/library/web:v1 reg.example/web:v2]} {" + c + " []}]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v, want %s", got, err, want)
	}
	wants(t, "manifest.json", out.String(), `[{"Config":"a","RepoTags":["shop:v2"],"Layers":["base"]},{"Config":"b","RepoTags":["web:v1","reg.example/web:v2"],"Layers":["base"]},{"Config":"c","RepoTags":null,"Layers":[]}]`)
	if err := newMerger(&out).add(strings.NewReader("no archive, but long enough to be none"+strings.Repeat(".", 600)), nil); err == nil {
		t.Error("text was taken for an archive")
	}
}

// TestSaving: the names that are asked for are written, and no others.
func TestSaving(t *testing.T) {
	shop := imageObject("shop", digestOf('a'), "shop:v1", "shop:v2", "reg.example/shop:v1")
	d := newDesk(t, map[string]*agent{"host-1": {held: []agentapi.Image{
		{Digest: digestOf('b'), Names: []string{"docker.io/library/web:v1"}}, {Digest: digestOf('c'), Names: []string{"docker.io/library/web:v2"}},
	}}}, shop)
	tests := []struct{ refs, want string }{
		{"shop:v1", "[{a [docker.io/library/shop:v1]}]"},
		{"shop", "[{a [docker.io/library/shop:v1 docker.io/library/shop:v2]}]"},
		{"shop:v2 reg.example/shop:v1 shop:v2", "[{a [docker.io/library/shop:v2 reg.example/shop:v1]}]"},
		{"web", "[{b [docker.io/library/web:v1]} {c [docker.io/library/web:v2]}]"},
		{digestOf('a'), "[{a []}]"},
		{"bbbbbb", "[{b []}]"},
		{"shop@" + digestOf('a') + " shop:v1", "[{a [docker.io/library/shop:v1]}]"},
	}
	for _, tt := range tests {
		var images []saving
		for _, ref := range strings.Fields(tt.refs) {
			rows, err := d.findAll(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range rows {
				images = addSaving(images, row, ref)
			}
		}
		var got []string
		for _, image := range images {
			got = append(got, fmt.Sprintf("{%.1s %v}", strings.TrimPrefix(image.row.Digest, "sha256:"), image.names))
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%s: %v, want %s", tt.refs, got, tt.want)
		}
	}
	if _, err := d.findAll(t.Context(), "nothing"); !errors.Is(err, errNoImage) {
		t.Errorf("a name that nothing has: %v", err)
	}
}
