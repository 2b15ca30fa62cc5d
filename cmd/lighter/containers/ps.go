package containers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/docker/go-units"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"
)

// ListOptions are the flags of "lighter ps".
type ListOptions struct {
	// All also lists containers that do not run.
	All, Quiet, AllNamespaces, Full bool
	// Format is table or json.
	Format string
}

// maxCommand is how much of a command the table shows.
const maxCommand = 20

// List prints the containers of the namespace's pods, the newest first.
func (c *Cluster) List(ctx context.Context, o ListOptions) error {
	if o.Format != "table" && o.Format != "json" {
		return fmt.Errorf("--format %s: want table or json", o.Format)
	}
	namespace := c.Namespace
	if o.AllNamespaces {
		namespace = metav1.NamespaceAll
	}
	pods, err := c.Kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	slices.SortStableFunc(pods.Items, func(a, b corev1.Pod) int {
		return b.CreationTimestamp.Compare(a.CreationTimestamp.Time)
	})
	now := time.Now()
	var rows []Row
	for i := range pods.Items {
		for _, row := range rowsOf(&pods.Items[i], now) {
			if o.All || row.State == "running" || row.State == "restarting" {
				rows = append(rows, row)
			}
		}
	}
	switch {
	case o.Quiet:
		for _, row := range rows {
			fmt.Fprintln(c.Out, row.Names)
		}
		return nil
	case o.Format == "json":
		out := json.NewEncoder(c.Out)
		for _, row := range rows {
			if err := out.Encode(row); err != nil {
				return err
			}
		}
		return nil
	}
	return c.table(rows, o, now)
}

func (c *Cluster) table(rows []Row, o ListOptions, now time.Time) error {
	table := printers.GetNewTabWriter(c.Out)
	if o.AllNamespaces {
		fmt.Fprint(table, "NAMESPACE\t")
	}
	fmt.Fprintln(table, "CONTAINER\tIMAGE\tCOMMAND\tCREATED\tSTATUS\tPORTS\tHOST")
	for _, row := range rows {
		if o.AllNamespaces {
			fmt.Fprintf(table, "%s\t", row.Namespace)
		}
		command := row.Command
		if runes := []rune(command); len(runes) > maxCommand && !o.Full {
			command = string(runes[:maxCommand-1]) + "…"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s ago\t%s\t%s\t%s\n", row.Names, row.Image, strconv.Quote(command),
			units.HumanDuration(now.Sub(row.CreatedAt)), row.Status, row.Ports, row.Host)
	}
	return table.Flush()
}
