package images

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"

	"lighter.dev/lighter/api/agentapi"
)

// TestDisplay: without a terminal there is a line for what has come about, and
// none for how far it is.
func TestDisplay(t *testing.T) {
	var out bytes.Buffer
	display(&out, func(report func(jsonstream.Message)) {
		for _, p := range []agentapi.Progress{
			{Status: "Pushing from here"},
			{ID: digestOf('a'), Status: "Pushing", Current: 1, Total: 2},
			{ID: digestOf('a'), Status: "Pushed", Current: 2, Total: 2},
			{ID: "config", Status: "Layer already exists"},
		} {
			report(message(blobID(p.ID), p))
		}
	})
	if want := "Pushing from here\naaaaaaaaaaaa: Pushed\nconfig: Layer already exists\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestHostBar(t *testing.T) {
	bar := hostBar{host: "host-1", blobs: map[string]agentapi.Progress{}}
	tests := []struct {
		in      agentapi.Progress
		want    agentapi.Progress
		changed bool
	}{
		{agentapi.Progress{Status: "Pulling"}, agentapi.Progress{ID: "host-1", Status: "Pulling"}, true},
		{agentapi.Progress{ID: "a", Status: "Downloading", Current: 1, Total: 4}, agentapi.Progress{ID: "host-1", Status: "Downloading", Current: 1, Total: 4}, true},
		{agentapi.Progress{ID: "b", Status: "Downloading", Current: 2, Total: 6}, agentapi.Progress{ID: "host-1", Status: "Downloading", Current: 3, Total: 10}, false},
		{agentapi.Progress{ID: "a", Status: "Pull complete"}, agentapi.Progress{ID: "host-1", Status: "Downloading", Current: 3, Total: 10}, false},
		{agentapi.Progress{Status: "Pull complete"}, agentapi.Progress{ID: "host-1", Status: "Pull complete"}, true},
	}
	for _, test := range tests {
		if line, changed := bar.add(test.in); line != test.want || changed != test.changed {
			t.Errorf("%+v: %+v, %t, want %+v, %t", test.in, line, changed, test.want, test.changed)
		}
	}
}

// TestUpload: the end of an archive is told however short it was.
func TestUpload(t *testing.T) {
	var last agentapi.Progress
	u := &upload{Reader: strings.NewReader(strings.Repeat("x", 1000)), name: "a.tar", total: 1000, report: func(p agentapi.Progress) { last = p }}
	if _, err := io.Copy(io.Discard, u); err != nil || last.Current != 1000 || last.ID != "a.tar" {
		t.Errorf("%+v, %v", last, err)
	}
}
