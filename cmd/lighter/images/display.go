package images

import (
	"io"
	"iter"
	"strings"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client/pkg/jsonmessage"

	"lighter.dev/lighter/api/agentapi"
)

// maxBars is how many progress bars a terminal has room for.
const maxBars = 20

// display shows progress as Docker does: a bar for each blob or host on a
// terminal, else a line for each new status. Work reports from any goroutine;
// display returns when it is done.
func display(out io.Writer, work func(report func(jsonstream.Message))) {
	messages := make(chan jsonstream.Message)
	go func() {
		defer close(messages)
		work(func(message jsonstream.Message) { messages <- message })
	}()
	var stream iter.Seq2[jsonstream.Message, error] = func(yield func(jsonstream.Message, error) bool) {
		shown := true
		for message := range messages { // to the end: the work must not hang
			shown = shown && yield(message, nil)
		}
	}
	_ = jsonmessage.DisplayMessages(stream, out) // messages hold no errors, and a terminal that is gone shows none
}

// message is a line of an agent's progress for the display. What is over
// ("Pushed", "Layer already exists") needs no bar, and without one it is shown
// where there is no terminal, too.
func message(id string, p agentapi.Progress) jsonstream.Message {
	line := jsonstream.Message{ID: id, Status: p.Status}
	switch {
	case id == "":
	case strings.HasSuffix(p.Status, "ing"):
		line.Progress = &jsonstream.Progress{Current: p.Current, Total: p.Total}
	default:
		line.Progress = &jsonstream.Progress{}
	}
	return line
}

// blobID is how a blob is called in progress: Docker's short form.
func blobID(id string) string {
	if _, _, ok := cutAlgorithm(id); ok {
		return short(id)
	}
	return id
}

// follow shows the progress of one stream, a bar for each blob, and returns its
// result.
func (c *Cluster) follow(quiet bool, stream func(report func(agentapi.Progress)) (agentapi.Result, error)) (result agentapi.Result, err error) {
	if quiet {
		return stream(nil)
	}
	display(c.Err, func(report func(jsonstream.Message)) {
		result, err = stream(func(p agentapi.Progress) { report(message(blobID(p.ID), p)) })
	})
	return result, err
}

// upload counts what is read of an archive, and shows it as one bar.
type upload struct {
	io.Reader
	name        string
	sent, total int64
	told        time.Time
	report      func(agentapi.Progress)
}

// tellEvery is how often a bar moves on.
const tellEvery = 100 * time.Millisecond

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	u.sent += int64(n)
	if u.report != nil && (err != nil || time.Since(u.told) >= tellEvery) {
		u.told = time.Now()
		u.report(agentapi.Progress{ID: u.name, Status: "Sending", Current: u.sent, Total: u.total})
	}
	return n, err
}
