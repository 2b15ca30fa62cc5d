package v1alpha1

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"k8s.io/apimachinery/pkg/util/validation"
)

// notLabel is what a DNS label (RFC 1123) cannot hold.
var notLabel = regexp.MustCompile(`[^a-z0-9]+`)

// ObjectNames derives from an image's name the metadata.name of an Image that a
// command makes for it ("lighter tag", "load", "build -t"): "shop" and
// "shop:latest" give "shop", "shop:v1" gives "shop-v1", "registry.example:5000/team/shop"
// gives "registry-example-5000-team-shop". Both results are DNS labels and depend
// on the name alone.
//
// Other names may give the same plain form ("shop-v1:latest"). Whoever finds the
// plain form taken by an object that does not declare the name uses the unique
// form, which ends in a hash of the full name.
func ObjectNames(tag string) (plain, unique string, err error) {
	full, err := NormalizeTag(tag)
	if err != nil {
		return "", "", err
	}
	named, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return "", "", err
	}
	short := strings.TrimSuffix(reference.FamiliarString(named), ":latest")
	label := strings.Trim(notLabel.ReplaceAllString(strings.ToLower(short), "-"), "-")
	sum := sha256.Sum256([]byte(full))
	suffix := "-" + hex.EncodeToString(sum[:4])
	start := label[:min(len(label), validation.DNS1123LabelMaxLength-len(suffix))]
	unique = strings.TrimRight(start, "-") + suffix
	if len(label) > validation.DNS1123LabelMaxLength {
		return unique, unique, nil
	}
	return label, unique, nil
}
