package images

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/cli-runtime/pkg/printers"

	"lighter.dev/lighter/api/agentapi"
)

// Step is one step of how an image was made, newest first.
type Step struct {
	ID           string
	CreatedAt    string
	CreatedSince string
	CreatedBy    string
	Size         string
	Bytes        int64
	Comment      string
}

// maxCommand is how much of a step's command a table shows.
const maxCommand = 45

// History prints how an image was made.
func (c *Cluster) History(ctx context.Context, ref string, format Format) error {
	row, details, err := c.details(ctx, ref)
	if err != nil {
		return err
	}
	steps := history(row.Digest, details, format)
	switch format.Template {
	case "", "table":
	default:
		show, err := shower(format.Template)
		if err != nil {
			return err
		}
		for _, step := range steps {
			if err := show(c.Out, step); err != nil {
				return err
			}
		}
		return nil
	}
	if format.Quiet {
		for _, step := range steps {
			fmt.Fprintln(c.Out, step.ID)
		}
		return nil
	}
	table := printers.GetNewTabWriter(c.Out)
	fmt.Fprintln(table, "IMAGE\tCREATED\tCREATED BY\tSIZE\tCOMMENT")
	for _, step := range steps {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", step.ID, step.CreatedSince, step.CreatedBy, step.Size, step.Comment)
	}
	return table.Flush()
}

// history joins the steps of a configuration with the layers that they made:
// every step but the empty ones has one (OCI image-spec, "history").
func history(digest string, details agentapi.ImageDetails, format Format) []Step {
	var steps []Step
	layers := details.Layers
	for _, made := range details.Config.History {
		step := Step{ID: "<missing>", CreatedBy: command(made.CreatedBy, format.Full), Comment: made.Comment, CreatedSince: "N/A"}
		if made.Created != nil {
			step.CreatedSince, step.CreatedAt = age(*made.Created, format.Now), made.Created.Format(time.RFC3339)
		}
		if !made.EmptyLayer && len(layers) > 0 {
			step.Bytes = layers[0].Size
			layers = layers[1:]
		}
		step.Size = size(step.Bytes)
		steps = append(steps, step)
	}
	// Some tools record no history.
	for _, layer := range layers {
		steps = append(steps, Step{ID: "<missing>", CreatedSince: "N/A", Bytes: layer.Size, Size: size(layer.Size)})
	}
	slices.Reverse(steps)
	if len(steps) > 0 {
		steps[0].ID = short(digest)
		if format.Full {
			steps[0].ID = digest
		}
	}
	return steps
}

// command is a step's command on one line, cut unless it is wanted in full.
func command(text string, full bool) string {
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); !full && len(runes) > maxCommand {
		return string(runes[:maxCommand-1]) + "…"
	}
	return text
}
