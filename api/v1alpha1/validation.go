package v1alpha1

import (
	"errors"
	"path"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// argName is what a Dockerfile's ARG instruction accepts as a name.
var argName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ValidateImageSpec checks a spec after defaulting. Each error names the field
// and says what would be right.
func ValidateImageSpec(spec *ImageSpec, fldPath *field.Path) field.ErrorList {
	errs := validateSource(&spec.Source, fldPath.Child("source"))
	errs = append(errs, validateBuild(spec, fldPath)...)
	seen := map[string]bool{}
	for i, tag := range spec.Tags {
		tagPath := fldPath.Child("tags").Index(i)
		name, err := NormalizeTag(tag)
		switch {
		case err != nil:
			errs = append(errs, field.Invalid(tagPath, tag, err.Error()))
		case seen[name]:
			errs = append(errs, field.Duplicate(tagPath, tag))
		}
		seen[name] = true
	}
	return errs
}

// validateBuild checks what says how to build, where something is built.
func validateBuild(spec *ImageSpec, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	refuse := func(name, why string) {
		errs = append(errs, field.Forbidden(fldPath.Child(name), why))
	}
	// A default that is still there from another source is no mistake.
	chosen := spec.Dockerfile != "" && spec.Dockerfile != DefaultDockerfile
	if !spec.Source.HasDockerfile() && len(spec.Source.Members()) == 1 {
		const why = "nothing is built from this source: remove the field, or give spec.source a path, git, inline or configMap"
		if chosen {
			refuse("dockerfile", why)
		}
		if spec.Target != "" {
			refuse("target", why)
		}
		if len(spec.Args) > 0 {
			refuse("args", why)
		}
		return errs
	}
	if chosen && spec.Source.Inline != "" {
		refuse("dockerfile", "spec.source.inline is the Dockerfile: remove one of the two")
	}
	errs = append(errs, validateDockerfile(spec.Dockerfile, fldPath.Child("dockerfile"))...)
	for name := range spec.Args {
		if !argName.MatchString(name) {
			errs = append(errs, field.Invalid(fldPath.Child("args").Key(name), name, "must be a Dockerfile ARG name: a letter or underscore, then letters, digits and underscores"))
		}
	}
	return errs
}

func validateDockerfile(dockerfile string, fldPath *field.Path) field.ErrorList {
	if dockerfile != "" && (!insideContext(dockerfile) || path.Clean(dockerfile) == ".") {
		return field.ErrorList{field.Invalid(fldPath, dockerfile, "must be a relative path of a file inside the build context")}
	}
	return nil
}

// insideContext tells whether a path with forward slashes stays below its root.
func insideContext(name string) bool {
	clean := path.Clean(name)
	return !path.IsAbs(clean) && clean != ".." && !strings.HasPrefix(clean, "../")
}

// NormalizeTag turns a name as a user writes it ("shop", "shop:v1",
// "registry.example/shop:v1") into its full form ("docker.io/library/shop:latest",
// …), so that two spellings of one name compare equal. A reference that is
// pinned by digest is refused: a build cannot choose its digest.
func NormalizeTag(tag string) (string, error) {
	named, err := reference.ParseNormalizedNamed(tag)
	if err != nil {
		return "", err
	}
	if _, pinned := named.(reference.Digested); pinned {
		return "", errPinned
	}
	return reference.TagNameOnly(named).String(), nil
}

// errPinned refuses a tag such as shop@sha256:….
var errPinned = errors.New("must not contain a digest: give a name such as shop:v1")
