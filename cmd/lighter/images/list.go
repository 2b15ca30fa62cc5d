package images

import (
	"context"
	"path"
	"slices"
	"strings"

	"lighter.dev/lighter/api/v1alpha1"
)

// ListOptions are the flags of "lighter images".
type ListOptions struct {
	// Filter is REPOSITORY or REPOSITORY:TAG, with * and ? as in file names.
	Filter string
	// All shows images without a name, too.
	All bool
	// AllNamespaces shows the Image objects of every namespace.
	AllNamespaces bool
	Format        Format
}

// List prints the images of the cluster: what Image objects declare and what the
// hosts have pulled.
func (c *Cluster) List(ctx context.Context, options ListOptions) error {
	render, err := options.Format.renderer(options.AllNamespaces)
	if err != nil {
		return err
	}
	rows, err := c.rows(ctx, options.AllNamespaces)
	if err != nil {
		return err
	}
	return render(c.Out, slices.DeleteFunc(rows, func(row Row) bool { return !options.shows(row) }))
}

// rows are all images, as the namespace sees them or as all namespaces do.
func (c *Cluster) rows(ctx context.Context, everywhere bool) ([]Row, error) {
	namespace, namespaces, seen := c.Namespace, []string{"", c.Namespace}, c.view()
	if everywhere && !c.alone() {
		namespace, seen = "", ofAll
	}
	objects, err := c.objects(ctx, namespace)
	if err != nil {
		return nil, err
	}
	if seen == ofAll {
		namespaces = namespacesOf(objects)
	}
	held, err := c.held(ctx, namespaces...)
	if err != nil {
		return nil, err
	}
	return union(objects, held, seen), nil
}

// namespacesOf are those with Image objects, and "" for what was pulled.
func namespacesOf(objects []v1alpha1.Image) []string {
	names := []string{""}
	for _, object := range objects {
		names = append(names, object.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// shows tells whether a row is to be printed. An Image without content yet is
// none that could be run; "lighter get images" says why.
func (o ListOptions) shows(row Row) bool {
	if row.Digest == "" || (row.Name == "" && !o.All) {
		return false
	}
	if o.Filter == "" {
		return true
	}
	wanted := familiar(o.Filter)
	if strings.ContainsAny(o.Filter, "*?[") {
		// A pattern is no reference: it is compared as it stands.
		repository, tag, _ := strings.Cut(o.Filter, ":")
		wanted = [2]string{repository, tag}
	}
	return fits(wanted[0], row.repository()) && (wanted[1] == "" || fits(wanted[1], row.tag()))
}

func fits(pattern, text string) bool {
	matched, err := path.Match(pattern, text)
	return err == nil && matched
}
