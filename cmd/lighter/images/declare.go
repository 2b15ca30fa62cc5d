package images

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"lighter.dev/lighter/api/v1alpha1"
)

// manager is the field manager of what the verbs set. "lighter apply" takes over
// what was set as it.
const manager = "lighter"

// declaration is an Image object that a command has made for a name.
type declaration struct {
	object *v1alpha1.Image
	// created: it was not there before, and goes again if it gets no content.
	created bool
}

// declare lets an Image object of the namespace declare a name with a source.
// An object that is built from source keeps its names: the next build would take
// the name back.
func (c *Cluster) declare(ctx context.Context, tag string, source v1alpha1.ImageSource) (declaration, error) {
	full, err := v1alpha1.NormalizeTag(tag)
	if err != nil {
		return declaration{}, fmt.Errorf("name %s: %w", tag, err)
	}
	var made declaration
	// A conflict means that somebody else changed the object: look again.
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		objects, err := c.objects(ctx, c.Namespace)
		if err != nil {
			return err
		}
		owner := v1alpha1.Owner(objects, c.Namespace, full)
		switch {
		case owner == nil:
			made.object, err = c.create(ctx, full, source)
			made.created = err == nil
			return err
		case owner.Spec.Source.HasDockerfile():
			return fmt.Errorf("%s is built from source by the Image %q of namespace %s: change that (\"lighter build\", \"lighter apply\"), remove it (\"lighter rmi %s\"), or give another name",
				shortName(full), owner.Name, owner.Namespace, shortName(full))
		case len(owner.Spec.Tags) > 1:
			// Its other names keep their meaning.
			if err := c.untag(ctx, owner, full); err != nil {
				return err
			}
			made.object, err = c.create(ctx, full, source)
			made.created = err == nil
			return err
		}
		changed := owner.DeepCopy()
		changed.Spec.Source = source
		made.object, err = c.Lighter.LighterV1alpha1().Images(c.Namespace).Update(ctx, changed, metav1.UpdateOptions{FieldManager: manager})
		return err
	})
	if err != nil {
		return declaration{}, fmt.Errorf("name an image %s: %w", shortName(full), err)
	}
	return made, nil
}

// create makes the object under its plain name, or under the unique one if the
// plain one is taken: by an object that declares another name.
func (c *Cluster) create(ctx context.Context, full string, source v1alpha1.ImageSource) (*v1alpha1.Image, error) {
	plain, unique, err := v1alpha1.ObjectNames(full)
	if err != nil {
		return nil, err
	}
	image := &v1alpha1.Image{
		ObjectMeta: metav1.ObjectMeta{Name: plain},
		Spec:       v1alpha1.ImageSpec{Source: source, Tags: []string{shortName(full)}},
	}
	api := c.Lighter.LighterV1alpha1().Images(c.Namespace)
	made, err := api.Create(ctx, image, metav1.CreateOptions{FieldManager: manager})
	if apierrors.IsAlreadyExists(err) && unique != plain {
		image.Name = unique
		made, err = api.Create(ctx, image, metav1.CreateOptions{FieldManager: manager})
	}
	return made, err
}

// untag takes one of several names away from an object.
func (c *Cluster) untag(ctx context.Context, image *v1alpha1.Image, full string) error {
	changed := image.DeepCopy()
	changed.Spec.Tags = image.TagsWithout(full)
	_, err := c.Lighter.LighterV1alpha1().Images(image.Namespace).Update(ctx, changed, metav1.UpdateOptions{FieldManager: manager})
	return err
}

// giveUp removes an object that was made for content which did not come.
func (c *Cluster) giveUp(ctx context.Context, made declaration) {
	if !made.created {
		return
	}
	uid := made.object.UID
	err := c.Lighter.LighterV1alpha1().Images(made.object.Namespace).Delete(context.WithoutCancel(ctx), made.object.Name,
		metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		c.warn("remove the Image %q, which got no content: %v", made.object.Name, err)
	}
}
