package v1alpha1

import (
	"fmt"
	"strings"
)

// Members are the JSON names of what is set, in the type's order. In a valid
// ImageSource there is exactly one.
func (s *ImageSource) Members() []string {
	var set []string
	for _, member := range []struct {
		name string
		set  bool
	}{
		{"path", s.Path != ""},
		{"git", s.Git != nil},
		{"inline", s.Inline != ""},
		{"configMap", s.ConfigMap != nil},
		{"image", s.Image != nil},
		{"archive", s.Archive != nil},
		{"container", s.Container != nil},
	} {
		if member.set {
			set = append(set, member.name)
		}
	}
	return set
}

// HasDockerfile tells sources that are built from those whose content was made
// before.
func (s *ImageSource) HasDockerfile() bool {
	return s.Path != "" || s.Git != nil || s.Inline != "" || s.ConfigMap != nil
}

// BuiltByCluster tells whether the cluster has all it needs to build: no client
// needs to send anything, or lend an SSH agent.
func (s *ImageSource) BuiltByCluster() bool {
	return s.Git != nil && !s.Git.needsKey() || s.Inline != "" || s.ConfigMap != nil
}

// needsKey tells whether the repository is cloned by SSH.
func (g *GitSource) needsKey() bool { return strings.HasPrefix(g.URL, "ssh:") }

// Polled tells whether the cluster has to find out by itself that the source has
// changed.
func (s *ImageSource) Polled() bool { return s.Git != nil && s.Git.PollInterval != nil }

// Describe is a source in a few words, for tables and messages.
func (s *ImageSource) Describe() string {
	switch {
	case s.Path != "":
		return "path " + s.Path
	case s.Git != nil:
		return "git " + s.Git.describe()
	case s.Inline != "":
		return "inline"
	case s.ConfigMap != nil:
		return "configmap/" + s.ConfigMap.Name
	case s.Image != nil:
		return "tag of " + withoutDigest(s.Image.Ref)
	case s.Archive != nil && s.Archive.Name != "":
		return "archive " + s.Archive.Name
	case s.Archive != nil:
		return "archive"
	case s.Container != nil:
		return fmt.Sprintf("container %s/%s", s.Container.Pod, s.Container.Container)
	}
	return ""
}

// describe is the repository in the form that "docker build" takes.
func (g *GitSource) describe() string {
	text := g.URL
	if g.Ref != "" || g.Path != "" {
		text += "#" + g.Ref
	}
	if g.Path != "" {
		text += ":" + g.Path
	}
	return text
}

// Missing says of an Image without content why, and what helps. It goes on from
// "image shop …".
func (i *Image) Missing() string {
	source := &i.Spec.Source
	switch {
	case source.Path != "":
		return fmt.Sprintf("has not been built: run \"lighter apply -f\" with its manifest where the folder %q is, or \"lighter build\"", source.Path)
	case source.Git != nil && source.Git.needsKey():
		return "has not been built: hosts have no SSH key, lend them yours with \"lighter build --ssh default\", or use an https:// URL"
	case source.BuiltByCluster():
		return "has not been built: the cluster does so as soon as a host is free"
	case source.Image != nil:
		return "has not been tagged yet: the cluster does so by itself"
	case source.Container != nil:
		return fmt.Sprintf("has no content yet: run \"lighter commit %s %s\"", source.Container.Pod, i.Name)
	}
	return fmt.Sprintf("has no content yet: run \"lighter import FILE %s\" or \"lighter load\"", i.Name)
}
