package v1alpha1

import (
	"cmp"
	"slices"
)

// Declares tells whether a full name, as NormalizeTag gives it, is one of the
// Image's tags.
func (i *Image) Declares(name string) bool {
	return slices.ContainsFunc(i.Spec.Tags, func(tag string) bool { return sameTag(tag, name) })
}

// TagsWithout are the Image's tags but for a full name.
func (i *Image) TagsWithout(name string) []string {
	return slices.DeleteFunc(slices.Clone(i.Spec.Tags), func(tag string) bool { return sameTag(tag, name) })
}

func sameTag(tag, name string) bool {
	full, err := NormalizeTag(tag)
	return err == nil && full == name
}

// Owner is the Image of a namespace that decides what a full name means: of those
// that declare it the oldest. It is nil if none does.
func Owner(images []Image, namespace, name string) *Image {
	var owner *Image
	for i := range images {
		image := &images[i]
		if image.Namespace == namespace && image.Declares(name) && (owner == nil || image.Before(owner)) {
			owner = image
		}
	}
	return owner
}

// Before tells whether an Image's claim to a name is older than another's.
func (i *Image) Before(other *Image) bool {
	return cmp.Or(i.CreationTimestamp.Compare(other.CreationTimestamp.Time), cmp.Compare(i.UID, other.UID)) < 0
}
