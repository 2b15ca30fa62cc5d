package v1alpha1

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const digestOf = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

func TestValidateSource(t *testing.T) {
	git := func(url, ref, path string) ImageSource {
		return ImageSource{Git: &GitSource{URL: url, Ref: ref, Path: path}}
	}
	polled := func(url, ref string, every time.Duration) ImageSource {
		return ImageSource{Git: &GitSource{URL: url, Ref: ref, PollInterval: &metav1.Duration{Duration: every}}}
	}
	tag := func(ref string) ImageSource { return ImageSource{Image: &TagSource{Ref: ref}} }
	for _, test := range []struct {
		name   string
		source ImageSource
		want   string // the field and part of the text, "" for no error
	}{
		{"nothing", ImageSource{}, "spec.source: Required value: say where the image comes from"},
		{"a folder", ImageSource{Path: "../src"}, ""},
		{"an inline Dockerfile", ImageSource{Inline: "FROM scratch"}, ""},
		{"two", ImageSource{Path: ".", Archive: &ArchiveSource{}}, "spec.source.archive: Forbidden: an image has one source: remove this or spec.source.path"},

		{"git", git("https://example.com/team/shop.git", "v1.2", "web/front"), ""},
		{"git without a suffix", git("http://10.0.0.1:3000/shop", "", ""), ""},
		{"git, a commit", git("git://example.com/shop", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c", ""), ""},
		{"git, a branch with a slash", git("https://example.com/shop", "feature/a+b", "."), ""},
		{"git without a URL", git("", "", ""), "spec.source.git.url: Required"},
		{"git by SSH", git("ssh://git@example.com/shop", "", ""), ""},
		{"git by SSH with a password", git("ssh://git:secret@example.com/shop", "", ""), "must not hold credentials"},
		{"git by SSH, short", git("git@example.com:team/shop.git", "", ""), "must begin with https://"},
		{"git on a disk", git("/srv/shop.git", "", ""), "must begin with https://"},
		{"git on the host's disk", git("file:///srv/shop.git", "", ""), "must begin with https://"},
		{"git with a bad port", git("https://example.com:x/shop", "", ""), "must be a URL such as"},
		{"git without a repository", git("https://example.com/", "", ""), "must name a host and a repository"},
		{"git with a branch in the URL", git("https://example.com/shop#main", "", ""), "a branch goes into ref"},
		{"git with a password", git("https://me:secret@example.com/shop", "", ""), "must not hold credentials"},
		{"git, an option as ref", git("https://example.com/shop", "--upload-pack=x", ""), "spec.source.git.ref: Invalid"},
		{"git, a range as ref", git("https://example.com/shop", "a..b", ""), "spec.source.git.ref: Invalid"},
		{"git, a way out", git("https://example.com/shop", "", "web/../.."), "spec.source.git.path: Invalid"},
		{"git, an absolute path", git("https://example.com/shop", "", "/etc"), "spec.source.git.path: Invalid"},
		{"git, polled", polled("https://example.com/shop", "main", 10*time.Second), ""},
		{"git, polled too often", polled("https://example.com/shop", "main", 9*time.Second), "spec.source.git.pollInterval: Invalid value: \"9s\": must be 10s or more"},
		{"git by SSH, polled", polled("ssh://git@example.com/shop", "", time.Hour), "spec.source.git.pollInterval: Forbidden: the cluster has no SSH key"},
		{"git, a commit, polled", polled("git://example.com/shop", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c", time.Hour), "spec.source.git.pollInterval: Forbidden: a commit never changes"},

		{"a ConfigMap", ImageSource{ConfigMap: &ConfigMapSource{Name: "web.files"}}, ""},
		{"a ConfigMap without a name", ImageSource{ConfigMap: &ConfigMapSource{}}, "spec.source.configMap.name: Required"},
		{"a ConfigMap with a wrong name", ImageSource{ConfigMap: &ConfigMapSource{Name: "Web"}}, "spec.source.configMap.name: Invalid"},

		{"a tag", tag("nginx:1.29@" + digestOf), ""},
		{"a tag by digest alone", tag("example.com/nginx@" + digestOf), ""},
		{"a tag of nothing", tag(""), "spec.source.image.ref: Required"},
		{"a tag that may move", tag("nginx:1.29"), `must be pinned by digest`},
		{"a tag that is no name", tag("Nginx@" + digestOf), "spec.source.image.ref: Invalid"},

		{"an archive", ImageSource{Archive: &ArchiveSource{}}, ""},
		{"a container", ImageSource{Container: &ContainerSource{Pod: "shop-1", Container: "web"}}, ""},
		{"a container without a pod", ImageSource{Container: &ContainerSource{Container: "web"}}, "spec.source.container.pod: Required"},
		{"a container with a wrong name", ImageSource{Container: &ContainerSource{Pod: "shop", Container: "a.b"}}, "spec.source.container.container: Invalid"},
	} {
		check(t, test.name, ImageSpec{Source: test.source}, test.want)
	}
	secret := ValidateImageSpec(&ImageSpec{Source: git("https://me:secret@example.com/shop", "", "")}, field.NewPath("spec"))
	if strings.Contains(secret.ToAggregate().Error(), "secret") {
		t.Errorf("repeats a password: %v", secret)
	}
}

func TestValidateBuild(t *testing.T) {
	archive, inline := ImageSource{Archive: &ArchiveSource{}}, ImageSource{Inline: "FROM scratch"}
	args := map[string]string{"A": "1"}
	for _, test := range []struct {
		name string
		spec ImageSpec
		want string
	}{
		{"all of it", ImageSpec{Source: ImageSource{Path: "."}, Dockerfile: "a/Dockerfile.prod", Target: "x", Args: args}, ""},
		{"a Dockerfile of an archive", ImageSpec{Source: archive, Dockerfile: "x"}, "spec.dockerfile: Forbidden: nothing is built from this source"},
		{"the default, from another source", ImageSpec{Source: archive, Dockerfile: "Dockerfile"}, ""},
		{"a target of an archive", ImageSpec{Source: archive, Target: "x"}, "spec.target: Forbidden"},
		{"arguments of an archive", ImageSpec{Source: archive, Args: args}, "spec.args: Forbidden"},
		{"two Dockerfiles", ImageSpec{Source: inline, Dockerfile: "other"}, "spec.dockerfile: Forbidden: spec.source.inline is the Dockerfile"},
		{"an inline Dockerfile's target", ImageSpec{Source: inline, Target: "x", Args: args}, ""},
		{"a folder as Dockerfile", ImageSpec{Source: ImageSource{Path: "."}, Dockerfile: "./"}, "spec.dockerfile: Invalid"},
	} {
		check(t, test.name, test.spec, test.want)
	}
}

// check validates a spec after defaulting and wants one error, or none.
func check(t *testing.T, name string, spec ImageSpec, want string) {
	t.Helper()
	image := &Image{Spec: spec}
	image.Name = "shop"
	SetImageDefaults(image)
	errs := ValidateImageSpec(&image.Spec, field.NewPath("spec"))
	switch {
	case want == "" && len(errs) > 0:
		t.Errorf("%s: %v", name, errs)
	case want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), want)):
		t.Errorf("%s: %v, want %q", name, errs, want)
	}
}

func TestDefaults(t *testing.T) {
	for name, test := range map[string]struct {
		source     ImageSource
		dockerfile string
	}{
		"built":  {ImageSource{Path: "."}, DefaultDockerfile},
		"tagged": {ImageSource{Image: &TagSource{Ref: "x@" + digestOf}}, ""},
	} {
		image := &Image{Spec: ImageSpec{Source: test.source}}
		image.Name = "shop"
		SetImageDefaults(image)
		if image.Spec.Dockerfile != test.dockerfile || !slices.Equal(image.Spec.Tags, []string{"shop:latest"}) {
			t.Errorf("%s: %+v", name, image.Spec)
		}
	}
}

func TestBuiltByCluster(t *testing.T) {
	for want, sources := range map[bool][]ImageSource{
		true:  {{Git: &GitSource{URL: "https://example.com/shop"}}, {Inline: "FROM x"}, {ConfigMap: &ConfigMapSource{Name: "x"}}},
		false: {{}, {Path: "."}, {Git: &GitSource{URL: "ssh://git@example.com/shop"}}, {Archive: &ArchiveSource{}}},
	} {
		for _, source := range sources {
			if source.BuiltByCluster() != want {
				t.Errorf("%s: want %v", source.Describe(), want)
			}
		}
	}
}

func TestDescribe(t *testing.T) {
	for want, source := range map[string]ImageSource{
		"path ./src":                            {Path: "./src"},
		"git https://example.com/shop":          {Git: &GitSource{URL: "https://example.com/shop"}},
		"git https://example.com/shop#main":     {Git: &GitSource{URL: "https://example.com/shop", Ref: "main"}},
		"git https://example.com/shop#main:web": {Git: &GitSource{URL: "https://example.com/shop", Ref: "main", Path: "web"}},
		"git https://example.com/shop#:web":     {Git: &GitSource{URL: "https://example.com/shop", Path: "web"}},
		"inline":                                {Inline: "FROM x"},
		"configmap/x":                           {ConfigMap: &ConfigMapSource{Name: "x"}},
		"tag of nginx:1.29":                     {Image: &TagSource{Ref: "nginx:1.29@" + digestOf}},
		"archive rootfs.tar":                    {Archive: &ArchiveSource{Name: "rootfs.tar"}},
		"archive":                               {Archive: &ArchiveSource{}},
		"container shop-1/web":                  {Container: &ContainerSource{Pod: "shop-1", Container: "web"}},
		"":                                      {},
	} {
		if got := source.Describe(); got != want {
			t.Errorf("%+v is %q, want %q", source, got, want)
		}
	}
}
