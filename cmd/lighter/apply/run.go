package apply

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/kubernetes"
)

// Run applies manifests and, if asked to, waits until they are rolled out.
func Run(ctx context.Context, getter genericclioptions.RESTClientGetter, options Options) error {
	objects, err := load(getter, options)
	if err != nil {
		return err
	}
	if err := check(objects, options); err != nil {
		return fmt.Errorf("nothing was applied:\n%w", err)
	}
	if options.DryRun {
		for _, o := range objects {
			fmt.Fprintln(options.Out, o, "would be applied (dry run)")
		}
		return nil
	}
	config, err := getter.ToRESTConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	built := digests{}
	for i, o := range objects {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("interrupted before %s: the %d objects above it are applied", o, i)
		}
		if err := one(ctx, client, o, options, built); err != nil {
			return fmt.Errorf("%w\n%d of %d objects are applied: correct this and repeat the command", err, i, len(objects))
		}
	}
	if !options.Wait {
		return nil
	}
	return follow(ctx, client, objects, built, options)
}

// one applies one object and, if it is an Image, sees to its content.
func one(ctx context.Context, client kubernetes.Interface, o object, options Options, built digests) error {
	before, err := versionOf(o)
	if err != nil {
		return explain(o, err)
	}
	if err := adopt(o); err != nil {
		return explain(o, err)
	}
	after, err := send(o, options, false)
	if err != nil {
		return explain(o, err)
	}
	fmt.Fprintln(options.Out, o, change(before, after.ResourceVersion))
	if !o.isImage() {
		return nil
	}
	image, ok := after.Object.(*unstructured.Unstructured)
	if !ok {
		return errors.New("the server returned no Image")
	}
	digest, err := fill(ctx, client, o, image, before == after.ResourceVersion, options)
	if err != nil {
		return fmt.Errorf("%s: %w", o, err)
	}
	if digest == "" {
		return nil
	}
	return built.add(image, digest)
}

// versionOf is the object's resource version; "" if it does not exist.
func versionOf(o object) (string, error) {
	found, err := resource.NewHelper(o.Client, o.Mapping).Get(o.Namespace, o.Name)
	if apierrors.IsNotFound(err) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	content, ok := found.(*unstructured.Unstructured)
	if !ok {
		return "", fmt.Errorf("unexpected %T", found)
	}
	return content.GetResourceVersion(), nil
}

func change(before, after string) string {
	switch before {
	case "":
		return "created"
	case after:
		return "unchanged"
	}
	return "configured"
}

// follow watches the applied Deployments and then prints addresses.
func follow(ctx context.Context, client kubernetes.Interface, objects []object, built digests, options Options) error {
	ctx, cancel := context.WithTimeoutCause(ctx, options.Timeout, fmt.Errorf("not finished within %s (--timeout)", options.Timeout))
	defer cancel()
	if err := watchRollouts(ctx, client, objects, built, options.Err); err != nil {
		return err
	}
	return printAddresses(ctx, client, objects, options.Out)
}
