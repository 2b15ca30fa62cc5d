package images

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

// objects are the Images of a namespace; of all if it is "".
func (c *Cluster) objects(ctx context.Context, namespace string) ([]v1alpha1.Image, error) {
	if c.alone() {
		return nil, nil
	}
	list, err := c.Lighter.LighterV1alpha1().Images(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list Images: %w", err)
	}
	return list.Items, nil
}

// held asks all hosts what they hold, as the namespaces see it and, for "", what
// they have pulled. Hosts that do not answer are named in a warning: the rest is
// worth seeing.
func (c *Cluster) held(ctx context.Context, namespaces ...string) (held, error) {
	ready, silent, err := c.hosts(ctx)
	if apierrors.IsForbidden(err) {
		c.warn("images that were pulled are not shown: %v", err)
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	answers := make(chan held, len(ready))
	failed := c.each(ctx, ready, func(ctx context.Context, host string, agent *agentapi.Client) error {
		var all []agentapi.Image
		for _, namespace := range namespaces {
			list, err := agent.Images(ctx, namespace)
			if err != nil {
				return err
			}
			all = append(all, list...)
		}
		answers <- held{host: all}
		return nil
	})
	close(answers)
	all := held{}
	for answer := range answers {
		for host, list := range answer {
			all[host] = list
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if len(silent) > 0 {
		c.warn("not asked, for they are not Ready: %s", strings.Join(silent, ", "))
	}
	switch {
	case len(failed) > 0 && apierrors.IsForbidden(failed[0]):
		c.warn("images that were pulled are not shown: %v", failed[0].err)
	case len(failed) > 0:
		c.warn("hosts that did not answer: %v", join(failed))
	}
	return all, nil
}

// find leads from what a user wrote to one image: a name, a name with digest, a
// digest, or the beginning of one. Objects of the namespace come first; hosts
// are asked only if none fits.
func (c *Cluster) find(ctx context.Context, ref string) (Row, error) {
	objects, err := c.objects(ctx, c.Namespace)
	if err != nil {
		return Row{}, err
	}
	if found, err := pick(union(objects, nil, ofNamespace), ref); err == nil {
		return found, nil
	}
	held, err := c.held(ctx, "", c.Namespace)
	if err != nil {
		return Row{}, err
	}
	return pick(union(objects, held, c.view()), ref)
}

// errNoImage: nothing has the name.
var errNoImage = errors.New("no such image")

// pick chooses the row that a reference means.
func pick(rows []Row, ref string) (Row, error) {
	matches := matching(rows, ref)
	if len(matches) == 0 {
		return Row{}, fmt.Errorf("%w: %s: no Image of the namespace and no host has it%s", errNoImage, ref, near(rows, ref))
	}
	digests := map[string]bool{}
	for _, row := range matches {
		digests[row.Digest] = true
	}
	if len(digests) == 1 {
		return matches[0], nil
	}
	// Pulled at different times, a name may mean different versions: the newest counts.
	if matches[0].Name != "" && !slices.ContainsFunc(matches, func(r Row) bool { return r.Name != matches[0].Name }) {
		return slices.MaxFunc(matches, func(a, b Row) int { return a.Created.Compare(b.Created) }), nil
	}
	var all []string
	for digest := range digests {
		all = append(all, short(digest))
	}
	slices.Sort(all)
	return Row{}, fmt.Errorf("%s may mean several images: %s: write more of the digest", ref, strings.Join(all, ", "))
}

// digits is what may be the beginning of a digest.
var digits = regexp.MustCompile(`^[0-9a-f]{4,64}$`)

// matching are the rows that a reference may mean. Names win over digests.
func matching(rows []Row, ref string) []Row {
	filter := func(fits func(Row) bool) []Row {
		var fitting []Row
		for _, row := range rows {
			if fits(row) {
				fitting = append(fitting, row)
			}
		}
		return fitting
	}
	if _, hex, ok := cutAlgorithm(ref); ok {
		return filter(func(r Row) bool { return r.Digest != "" && strings.HasPrefix(r.Digest, ref) && len(hex) >= 4 })
	}
	if named, err := reference.ParseNormalizedNamed(ref); err == nil {
		var found []Row
		if pinned, ok := named.(reference.Digested); ok {
			name := reference.TrimNamed(named).Name()
			found = filter(func(r Row) bool {
				return r.Digest == pinned.Digest().String() && (r.Name == "" || withoutTag(r.Name) == name)
			})
		} else {
			full := reference.TagNameOnly(named).String()
			found = filter(func(r Row) bool { return r.Name == full })
		}
		if len(found) > 0 {
			return found
		}
	}
	if !digits.MatchString(ref) {
		return nil
	}
	return filter(func(r Row) bool {
		_, hex, _ := cutAlgorithm(r.Digest)
		return strings.HasPrefix(hex, ref)
	})
}

// near says which images have a name like the one that was not found.
func near(rows []Row, ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ""
	}
	wanted := path.Base(named.Name())
	var same, like []string
	for _, row := range rows {
		switch base := path.Base(withoutTag(row.Name)); {
		case row.Name == "":
		case base == wanted:
			same = append(same, shortName(row.Name))
		case strings.Contains(base, wanted) || strings.Contains(wanted, base):
			like = append(like, shortName(row.Name))
		}
	}
	slices.Sort(same)
	slices.Sort(like)
	like = slices.Compact(append(same, like...))
	if len(like) == 0 {
		return " (\"lighter images\" lists what there is, \"lighter pull\" fetches one)"
	}
	return "; near it: " + strings.Join(like[:min(len(like), 5)], ", ")
}

func withoutTag(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return named.Name()
}

// cutAlgorithm splits "sha256:0123…".
func cutAlgorithm(digest string) (algorithm, hex string, ok bool) {
	algorithm, hex, ok = strings.Cut(digest, ":")
	if algorithm != "sha256" && algorithm != "sha512" {
		return "", "", false
	}
	return algorithm, hex, ok
}
