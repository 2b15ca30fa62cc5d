package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/resource"

	"lighter.dev/lighter/api/v1alpha1"
)

// Manager is the field manager of what "lighter apply" sets.
const Manager = "lighter"

// ImageBuild is one image to build.
type ImageBuild struct {
	Namespace, Name string
	// Dir is the folder to send, Dockerfile the path in it; "" for the default.
	Dir, Dockerfile string
	// Files are sent instead of a folder, content by name. Without either, the
	// builder has all it needs.
	Files map[string][]byte
}

// Options are what the command line says.
type Options struct {
	Files    resource.FilenameOptions
	Selector string
	// DryRun checks everything and changes nothing.
	DryRun bool
	// ForceConflicts takes over fields that others have set.
	ForceConflicts bool
	// Wait follows the rollouts, for at most Timeout.
	Wait    bool
	Timeout time.Duration
	// Build builds one image and returns its digest. It shows its own progress.
	Build func(context.Context, ImageBuild) (digest string, err error)
	// Out gets one line per step, Err the progress.
	Out, Err io.Writer
}

// object is one object of a manifest.
type object struct {
	*resource.Info
	content *unstructured.Unstructured
}

// kind is kind.group in lower case, as kubectl prints it.
func (o object) kind() string {
	gk := o.Mapping.GroupVersionKind.GroupKind()
	return strings.ToLower(gk.String())
}

func (o object) String() string { return o.kind() + "/" + o.Name }

// where names the object and the file it stands in, for errors.
func (o object) where() string {
	name := o.String()
	if o.Namespace != "" {
		name = fmt.Sprintf("%s in namespace %s", name, o.Namespace)
	}
	if o.Source == "" {
		return name
	}
	return fmt.Sprintf("%s: %s", o.Source, name)
}

// fromFile tells manifests that lie in a file from standard input and URLs.
func (o object) fromFile() bool {
	return o.Source != "" && o.Source != "STDIN" && !strings.Contains(o.Source, "://")
}

func (o object) isImage() bool {
	return o.Mapping.GroupVersionKind.Group == v1alpha1.GroupName && o.Mapping.GroupVersionKind.Kind == "Image"
}

// path is the folder to build for an Image, "" if its source is another one.
func (o object) path() string {
	path, _, _ := unstructured.NestedString(o.content.Object, "spec", "source", "path")
	return path
}

// build is what to build for an Image that has a folder.
func (o object) build() ImageBuild {
	dockerfile, _, _ := unstructured.NestedString(o.content.Object, "spec", "dockerfile")
	dir := filepath.FromSlash(o.path())
	if !filepath.IsAbs(dir) && o.fromFile() {
		dir = filepath.Join(filepath.Dir(o.Source), dir)
	}
	return ImageBuild{Namespace: o.Namespace, Name: o.Name, Dir: dir, Dockerfile: dockerfile}
}

// load reads all manifests and sorts them in the order of their application.
func load(getter genericclioptions.RESTClientGetter, options Options) ([]object, error) {
	namespace, enforce, err := getter.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, err
	}
	result := resource.NewBuilder(getter).
		Unstructured().
		ContinueOnError().
		NamespaceParam(namespace).DefaultNamespace().
		FilenameParam(enforce, &options.Files).
		LabelSelectorParam(options.Selector).
		Flatten().
		Do()
	infos, err := result.Infos()
	if err != nil {
		return nil, err
	}
	objects := make([]object, 0, len(infos))
	for _, info := range infos {
		content, ok := info.Object.(*unstructured.Unstructured)
		if !ok {
			return nil, fmt.Errorf("%s: unexpected %T", info.Source, info.Object)
		}
		if info.Name == "" {
			return nil, fmt.Errorf("%s: a %s has no metadata.name (generateName does not work with apply: use 'lighter create')", info.Source, content.GetKind())
		}
		objects = append(objects, object{Info: info, content: content})
	}
	if len(objects) == 0 {
		return nil, errors.New("no objects: the files hold no manifest")
	}
	slices.SortStableFunc(objects, func(a, b object) int { return cmp.Compare(rank(a), rank(b)) })
	return objects, nil
}
