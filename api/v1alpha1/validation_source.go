package v1alpha1

import (
	"errors"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// gitSchemes are those of repositories elsewhere.
var gitSchemes = []string{"https", "http", "git", "ssh"}

// gitRef is the part of git-check-ref-format(1) that keeps a ref from being an
// option of git, a range of commits, or two words.
var gitRef = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./+@-]*$`)

// minPollInterval keeps many Images from being a burden to a repository's server.
const minPollInterval = 10 * time.Second

// gitCommit is the full name of a commit, by either hash that git has.
var gitCommit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// validateSource checks that a source has exactly one member, and that one.
func validateSource(source *ImageSource, fldPath *field.Path) field.ErrorList {
	members := source.Members()
	switch {
	case len(members) == 0:
		return field.ErrorList{field.Required(fldPath,
			"say where the image comes from: path, git, inline or configMap to build it; image, archive or container for one that exists")}
	case len(members) > 1:
		var errs field.ErrorList
		for _, name := range members[1:] {
			errs = append(errs, field.Forbidden(fldPath.Child(name), "an image has one source: remove this or "+fldPath.Child(members[0]).String()))
		}
		return errs
	case source.Git != nil:
		return validateGit(source.Git, fldPath.Child("git"))
	case source.ConfigMap != nil:
		return validateName(source.ConfigMap.Name, fldPath.Child("configMap", "name"), "the ConfigMap whose keys are the files to build", validation.NameIsDNSSubdomain)
	case source.Image != nil:
		return validateTagged(source.Image.Ref, fldPath.Child("image", "ref"))
	case source.Container != nil:
		return append(
			validateName(source.Container.Pod, fldPath.Child("container", "pod"), "the pod of the container", validation.NameIsDNSSubdomain),
			validateName(source.Container.Container, fldPath.Child("container", "container"), "the container's name in its pod", validation.NameIsDNSLabel)...)
	}
	return nil
}

func validateName(name string, fldPath *field.Path, what string, check validation.ValidateNameFunc) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(fldPath, what)}
	}
	var errs field.ErrorList
	for _, why := range check(name, false) {
		errs = append(errs, field.Invalid(fldPath, name, why))
	}
	return errs
}

func validateGit(git *GitSource, fldPath *field.Path) field.ErrorList {
	errs := validateGitURL(git.URL, fldPath.Child("url"))
	if git.Ref != "" && (!gitRef.MatchString(git.Ref) || strings.Contains(git.Ref, "..") || strings.Contains(git.Ref, "@{")) {
		errs = append(errs, field.Invalid(fldPath.Child("ref"), git.Ref, "must be the name of a branch or tag, or a commit"))
	}
	if git.Path != "" && !insideContext(git.Path) {
		errs = append(errs, field.Invalid(fldPath.Child("path"), git.Path, "must be the relative path of a folder inside the repository"))
	}
	if git.PollInterval != nil {
		errs = append(errs, validatePollInterval(git, fldPath.Child("pollInterval"))...)
	}
	return errs
}

func validatePollInterval(git *GitSource, fldPath *field.Path) field.ErrorList {
	switch {
	case git.PollInterval.Duration < minPollInterval:
		return field.ErrorList{field.Invalid(fldPath, git.PollInterval.Duration.String(), "must be "+minPollInterval.String()+" or more")}
	case git.needsKey():
		return field.ErrorList{field.Forbidden(fldPath, "the cluster has no SSH key to ask the repository with: use https://, or build with \"lighter build --ssh\"")}
	case gitCommit.MatchString(git.Ref):
		return field.ErrorList{field.Forbidden(fldPath, "a commit never changes: name a branch or tag in ref")}
	}
	return nil
}

func validateGitURL(text string, fldPath *field.Path) field.ErrorList {
	if text == "" {
		return field.ErrorList{field.Required(fldPath, "the repository to clone, such as https://example.com/team/shop.git")}
	}
	invalid := func(why string) field.ErrorList { return field.ErrorList{field.Invalid(fldPath, text, why)} }
	u, err := url.Parse(text)
	switch {
	case err != nil && !strings.Contains(text, "://"), err == nil && !slices.Contains(gitSchemes, u.Scheme):
		return invalid("must begin with https://, http://, git:// or ssh://")
	case err != nil:
		return invalid("must be a URL such as https://example.com/team/shop.git")
	case u.User != nil && (u.Scheme != "ssh" || hasPassword(u)):
		// Everyone who may read Images could read it.
		return field.ErrorList{field.Invalid(fldPath, u.Redacted(), "must not hold credentials")}
	case u.Host == "" || path.Clean(u.Path) == "/" || u.Path == "":
		return invalid("must name a host and a repository, such as https://example.com/team/shop.git")
	case u.Fragment != "" || u.RawQuery != "":
		return invalid("must end with the repository: a branch goes into ref, a folder into path")
	}
	return nil
}

func hasPassword(u *url.URL) bool {
	_, has := u.User.Password()
	return has
}

// validateTagged wants a digest: a name alone would mean another image whenever
// somebody moves it, and nobody would notice.
func validateTagged(ref string, fldPath *field.Path) field.ErrorList {
	if ref == "" {
		return field.ErrorList{field.Required(fldPath, "the image to name, pinned by digest: nginx:1.29@sha256:…")}
	}
	if _, err := ParsePinned(ref); err != nil {
		return field.ErrorList{field.Invalid(fldPath, ref, err.Error())}
	}
	return nil
}

// ParsePinned returns the digest of a reference that has one.
func ParsePinned(ref string) (digest.Digest, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", err
	}
	pinned, ok := named.(reference.Canonical)
	if !ok {
		return "", errNotPinned
	}
	return pinned.Digest(), nil
}

// errNotPinned refuses a source such as nginx:1.29.
var errNotPinned = errors.New("must be pinned by digest (nginx:1.29@sha256:…): \"lighter tag\" looks it up")

// withoutDigest shortens a pinned reference for people.
func withoutDigest(ref string) string {
	name, _, _ := strings.Cut(ref, "@")
	return name
}
