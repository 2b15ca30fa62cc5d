package build

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/distribution/reference"

	"lighter.dev/lighter/api/v1alpha1"
)

// claim is a name that another Image declares.
type claim struct {
	image *v1alpha1.Image
	name  string
}

// plan is which Image object is built.
type plan struct {
	// object is metadata.name; existing is the Image that has it already.
	object   string
	existing *v1alpha1.Image
	// tags are the names that it can declare at once.
	tags []string
	// moves are names that other Images declare. They move when the build has
	// succeeded: until then they mean what they meant.
	moves []claim
}

// choose finds the object for names, given the Images of their namespace. The one
// that declares the first name is built anew, whatever it was made of; else one is
// made, called after that name (v1alpha1.ObjectNames).
func choose(images []v1alpha1.Image, tags []string) (plan, error) {
	var p plan
	namespace := ""
	if len(images) > 0 {
		namespace = images[0].Namespace
	}
	full := make([]string, 0, len(tags))
	for _, tag := range tags {
		name, err := v1alpha1.NormalizeTag(tag)
		if err != nil {
			return p, fmt.Errorf("name %s: %w", tag, err)
		}
		if !slices.Contains(full, name) {
			full = append(full, name)
		}
	}
	plain, unique, err := v1alpha1.ObjectNames(full[0])
	if err != nil {
		return p, err
	}
	p.object, p.existing = plain, v1alpha1.Owner(images, namespace, full[0])
	if p.existing != nil {
		p.object = p.existing.Name
	} else if slices.ContainsFunc(images, func(i v1alpha1.Image) bool { return i.Name == plain }) {
		p.object = unique
	}
	for _, name := range full {
		if other := v1alpha1.Owner(images, namespace, name); other == nil || other.Name == p.object {
			p.tags = append(p.tags, short(name))
			continue
		}
		for i := range images {
			if image := &images[i]; image.Name != p.object && image.Declares(name) {
				p.moves = append(p.moves, claim{image, name})
			}
		}
	}
	return p, nil
}

// all are the names that the object has in the end.
func (p plan) all() []string {
	tags := slices.Clone(p.tags)
	for _, move := range p.moves {
		if tag := short(move.name); !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	return tags
}

// short is a full name as people write it.
func short(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(named)
}

// nameless is what an image is called that was given no name: the same source
// gets the same name, so that its build cache and its object are found again.
func nameless(source string) string {
	sum := sha256.Sum256([]byte(source))
	return "untagged-" + hex.EncodeToString(sum[:6])
}
