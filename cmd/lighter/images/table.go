package images

import (
	"fmt"
	"io"
	"strings"

	"k8s.io/cli-runtime/pkg/printers"
)

// maxHosts is how many hosts a table names before it only counts.
const maxHosts = 3

// table prints one row a name. A writer that fails does so at the flush.
func (f Format) table(w io.Writer, rows []Row, namespaces bool) error {
	table := printers.GetNewTabWriter(w)
	if namespaces {
		fmt.Fprint(table, "NAMESPACE\t")
	}
	fmt.Fprintln(table, "REPOSITORY\tTAG\tDIGEST\tCREATED\tSIZE\tHOSTS")
	for _, row := range rows {
		line := f.line(row)
		if namespaces {
			fmt.Fprintf(table, "%s\t", orNone(row.Namespace))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", line.Repository, line.Tag, line.ID, line.CreatedSince, line.Size, f.hosts(row.Hosts))
	}
	return table.Flush()
}

// hosts names some of the hosts.
func (f Format) hosts(hosts []string) string {
	switch {
	case len(hosts) == 0:
		return "<none>"
	case f.Full || len(hosts) <= maxHosts:
		return strings.Join(hosts, ",")
	}
	return fmt.Sprintf("%s,+%d", strings.Join(hosts[:maxHosts-1], ","), len(hosts)-maxHosts+1)
}
