package image

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Normalize turns a name as a user writes it (shop, shop:v1, host/shop@sha256:…)
// into its full form (docker.io/library/shop:latest, …), the key of an image
// record. A digest, if the name has one, is returned apart and is not part of
// the full form. Errors are ErrInvalidName.
func Normalize(ref string) (string, digest.Digest, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", "", fmt.Errorf("%w: %q: %w", ErrInvalidName, ref, err)
	}
	if reserved(named) {
		return "", "", fmt.Errorf("%w: %q: names under *%s are for builds alone", ErrInvalidName, ref, baseHost)
	}
	var dgst digest.Digest
	if d, ok := named.(reference.Digested); ok {
		dgst = d.Digest()
		if _, tagged := named.(reference.Tagged); !tagged {
			// name@digest has no tag: "latest" would be a guess about another image.
			return named.Name(), dgst, nil
		}
	}
	base := reference.TrimNamed(named)
	tagged, err := reference.WithTag(base, tagOf(named))
	if err != nil {
		return "", "", fmt.Errorf("%w: %q: %w", ErrInvalidName, ref, err)
	}
	return tagged.String(), dgst, nil
}

func tagOf(named reference.Named) string {
	if t, ok := named.(reference.Tagged); ok {
		return t.Tag()
	}
	return "latest"
}

// tagged tells whether a full name has a tag.
func tagged(name string) bool { return strings.Contains(name[strings.LastIndex(name, "/")+1:], ":") }

// canonical is the name of the record that keeps one exact version of an image
// though its tag has moved on.
func canonical(name string, dgst digest.Digest) string { return name + "@" + dgst.String() }

// splitCanonical undoes canonical; ok is false for a plain name.
func splitCanonical(record string) (name string, dgst digest.Digest, ok bool) {
	name, d, ok := strings.Cut(record, "@")
	return name, digest.Digest(d), ok
}

// repository is name without its tag and digest.
func repository(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return named.Name()
}

// qualify puts the configured default registry in front of a name that was
// written without one.
func qualify(ref, registry string) string {
	if registry == "" {
		return ref
	}
	head, _, slash := strings.Cut(ref, "/")
	if slash && (strings.ContainsAny(head, ".:") || head == "localhost") {
		return ref
	}
	return registry + "/" + ref
}
