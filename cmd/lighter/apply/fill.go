package apply

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/kubernetes"

	"lighter.dev/lighter/api/v1alpha1"
)

// fill sees to the content of an Image that was applied and returns its digest,
// "" if there is none yet and nothing to wait for. unchanged: the cluster had the
// object as it is.
func fill(ctx context.Context, client kubernetes.Interface, o object, applied *unstructured.Unstructured, unchanged bool, options Options) (string, error) {
	image, err := imageFrom(applied)
	if err != nil {
		return "", err
	}
	if image.Spec.Source.Path != "" {
		digest, err := options.Build(ctx, o.build())
		if err == nil {
			fmt.Fprintf(options.Out, "%s built: %s\n", o, digest)
		}
		return digest, err
	}
	files, hash, err := filesOf(ctx, client, image)
	if err != nil {
		return "", err
	}
	state, _ := judgeContent(image, hash)
	if unchanged && (state == failed || state == made && image.Spec.Source.Git != nil && image.Spec.Source.BuiltByCluster()) {
		// The cluster sees no reason to build it again. Whoever applies it does:
		// what failed may have been the network, and a branch has new commits.
		digest, err := options.Build(ctx, ImageBuild{Namespace: image.Namespace, Name: image.Name, Dockerfile: image.Spec.Dockerfile, Files: files})
		if err == nil {
			fmt.Fprintf(options.Out, "%s built: %s\n", o, digest)
		}
		return digest, err
	}
	return await(ctx, o, image, hash, options)
}

// await follows an Image until its content is there, and says what it waits for.
func await(ctx context.Context, o object, image *v1alpha1.Image, hash string, options Options) (string, error) {
	said := ""
	for {
		state, words := judgeContent(image, hash)
		switch {
		case state == made:
			fmt.Fprintf(options.Out, "%s %s: %s\n", o, words, image.Status.Digest)
			return image.Status.Digest, nil
		case state == failed:
			return "", errors.New(words)
		case words != said:
			said = words
			fmt.Fprintf(options.Err, "%s %s\n", o, words)
		}
		if state == absent || !options.Wait {
			return image.Status.Digest, nil
		}
		var err error
		if image, err = next(ctx, o, image); err != nil {
			return "", err
		}
	}
}

// next is an Image's next version.
func next(ctx context.Context, o object, image *v1alpha1.Image) (*v1alpha1.Image, error) {
	helper := resource.NewHelper(o.Client, o.Mapping)
	events, err := helper.WatchSingle(o.Namespace, o.Name, image.ResourceVersion)
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	defer events.Stop()
	select {
	case event := <-events.ResultChan():
		if event.Type == watch.Deleted {
			return nil, errors.New("it was deleted meanwhile")
		}
		if seen, ok := event.Object.(*unstructured.Unstructured); ok {
			return imageFrom(seen)
		}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	// The watch has ended, as watches do, or its version is too old.
	found, err := helper.Get(o.Namespace, o.Name)
	if err != nil {
		return nil, err
	}
	seen, ok := found.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("unexpected %T", found)
	}
	return imageFrom(seen)
}

func imageFrom(object *unstructured.Unstructured) (*v1alpha1.Image, error) {
	image := &v1alpha1.Image{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, image); err != nil {
		return nil, fmt.Errorf("read the Image: %w", err)
	}
	return image, nil
}

// filesOf are the files of a ConfigMap source.
func filesOf(ctx context.Context, client kubernetes.Interface, image *v1alpha1.Image) (files map[string][]byte, hash string, err error) {
	source := image.Spec.Source.ConfigMap
	if source == nil {
		return nil, "", nil
	}
	configMap, err := client.CoreV1().ConfigMaps(image.Namespace).Get(ctx, source.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, "", fmt.Errorf("spec.source.configMap: there is no ConfigMap %q in namespace %s: add it to the manifest", source.Name, image.Namespace)
	}
	if err != nil {
		return nil, "", fmt.Errorf("spec.source.configMap: %w", err)
	}
	files, hash = v1alpha1.ContextOf(configMap)
	if _, ok := files[image.Spec.Dockerfile]; !ok {
		return nil, "", fmt.Errorf("spec.source.configMap: ConfigMap %q has no key %q: add it, or name another one in spec.dockerfile", source.Name, image.Spec.Dockerfile)
	}
	return files, hash, nil
}
