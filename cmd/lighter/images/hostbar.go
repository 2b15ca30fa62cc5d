package images

import (
	"github.com/moby/moby/api/types/jsonstream"

	"lighter.dev/lighter/api/agentapi"
)

// hostReport shows what a single host does by blob, as Docker does, if it tells;
// of several hosts each gets one bar, and of very many only a line for each new
// status.
func hostReport(host string, hosts int, report func(jsonstream.Message)) func(agentapi.Progress) {
	bar := hostBar{host: host, blobs: map[string]agentapi.Progress{}}
	return func(p agentapi.Progress) {
		if hosts == 1 && p.ID != "" {
			report(message(blobID(p.ID), p))
			return
		}
		line, changed := bar.add(p)
		if changed {
			// Without counts it is also shown where there is no terminal.
			report(message(line.ID, agentapi.Progress{Status: line.Status}))
		}
		if hosts <= maxBars && line.Total > 0 {
			report(message(line.ID, line))
		}
	}
}

// hostBar sums up what one host does with all blobs of an image.
type hostBar struct {
	host, status string
	blobs        map[string]agentapi.Progress
}

// add takes a line, and returns the host's own and whether its status is new.
// Blobs come and go side by side: of their many statuses the last one that
// counts bytes is shown.
func (b *hostBar) add(p agentapi.Progress) (line agentapi.Progress, changed bool) {
	if p.Total > 0 {
		b.blobs[p.ID] = p
	}
	if p.Total > 0 || p.ID == "" {
		changed = b.status != p.Status
		b.status = p.Status
	}
	line = agentapi.Progress{ID: b.host, Status: b.status}
	if p.ID == "" && p.Total == 0 {
		return line, changed // about the image as a whole
	}
	for _, blob := range b.blobs {
		line.Current += blob.Current
		line.Total += blob.Total
	}
	return line, changed
}
