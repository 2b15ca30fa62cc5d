package apply

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/yaml"
)

// check finds every mistake it can before anything changes: locally, then by a
// dry run on the server.
func check(objects []object, options Options) error {
	if err := checkLocal(objects); err != nil {
		return err
	}
	fresh := map[string]bool{}
	for _, o := range objects {
		if o.Mapping.GroupVersionKind.Kind == "Namespace" {
			fresh[o.Name] = true
		}
	}
	var errs []error
	for _, o := range objects {
		err := tryOut(o, options)
		if apierrors.IsNotFound(err) && fresh[o.Namespace] {
			// Its namespace comes into being with it: try it in another.
			err = tryOut(inNamespace(o, metav1.NamespaceDefault), options)
		}
		if err != nil {
			errs = append(errs, explain(o, err))
		}
	}
	return errors.Join(errs...)
}

func checkLocal(objects []object) error {
	var errs []error
	seen := map[string]bool{}
	names := map[string]string{}
	for _, o := range objects {
		if o.fromFile() && !seen[o.Source] {
			seen[o.Source] = true
			errs = append(errs, checkKeys(o.Source))
		}
		key := o.Namespace + "/" + o.String()
		if other, twice := names[key]; twice {
			errs = append(errs, fmt.Errorf("%s: also defined in %s", o.where(), other))
		}
		names[key] = o.Source
		if o.isImage() && o.path() != "" {
			errs = append(errs, checkFolder(o))
		}
	}
	return errors.Join(errs...)
}

func checkFolder(o object) error {
	build := o.build()
	if info, err := os.Stat(build.Dir); err != nil {
		return fmt.Errorf("%s: spec.source.path: %w (the path is relative to the manifest's folder)", o.where(), err)
	} else if !info.IsDir() {
		return fmt.Errorf("%s: spec.source.path: %s is not a folder", o.where(), build.Dir)
	}
	return nil
}

// checkKeys finds keys that a mapping has twice: YAML forbids them, but most
// readers quietly take the last.
func checkKeys(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if _, err := yaml.YAMLToJSONStrict(document); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
}

// send applies one object, or only tries it, with unknown fields being errors.
func send(o object, options Options, dryRun bool) (*resource.Info, error) {
	data, err := o.content.MarshalJSON()
	if err != nil {
		return nil, err
	}
	helper := resource.NewHelper(o.Client, o.Mapping).
		DryRun(dryRun).
		WithFieldManager(Manager).
		WithFieldValidation(metav1.FieldValidationStrict)
	applied, err := helper.Patch(o.Namespace, o.Name, types.ApplyPatchType, data, &metav1.PatchOptions{Force: &options.ForceConflicts})
	if err != nil {
		return nil, err
	}
	after := *o.Info
	return &after, after.Refresh(applied, true)
}

// inNamespace is a copy of an object for another namespace.
func inNamespace(o object, namespace string) object {
	o = copied(o)
	o.Namespace = namespace
	o.content.SetNamespace(namespace)
	return o
}

func copied(o object) object {
	info, content := *o.Info, o.content.DeepCopy()
	info.Object = content
	return object{Info: &info, content: content}
}

// explain adds to a server's error where the object stands and what to do.
func explain(o object, err error) error {
	switch {
	case apierrors.IsConflict(err):
		return fmt.Errorf("%s: %w\n(give the field up, or take it over with --force-conflicts)", o.where(), err)
	case apierrors.IsNotFound(err) && o.Namespace != "":
		return fmt.Errorf("%s: %w (does the namespace exist?)", o.where(), err)
	}
	return fmt.Errorf("%s: %w", o.where(), err)
}
