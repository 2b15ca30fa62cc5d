package images

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"lighter.dev/lighter/api/v1alpha1"
)

const (
	// tagLimit is how long a new name may take until the cluster knows what it
	// means, tagInterval how often to look.
	tagLimit    = 30 * time.Second
	tagInterval = 50 * time.Millisecond
)

// Tag gives an image another name, which an Image object of the namespace
// declares from now on.
func (c *Cluster) Tag(ctx context.Context, from, to string) error {
	row, err := c.find(ctx, from)
	if err != nil {
		return err
	}
	if row.Digest == "" {
		return fmt.Errorf("%s has no content yet: \"lighter describe image %s\" says why", from, row.Object)
	}
	if full, err := v1alpha1.NormalizeTag(to); err == nil && full == row.Name && row.Object != "" {
		return nil // it is its own name already
	}
	return c.tag(ctx, row, to)
}

func (c *Cluster) tag(ctx context.Context, row Row, to string) error {
	name := row.Name
	if name == "" {
		name = to // an image without a name: the digest is what counts
	}
	made, err := c.declare(ctx, to, v1alpha1.ImageSource{Image: &v1alpha1.TagSource{Ref: shortName(name) + "@" + row.Digest}})
	if err != nil {
		return err
	}
	return c.awaitContent(ctx, made.object, row.Digest)
}

// awaitContent waits until an object's status has a digest, so that whoever
// pushes or runs it next finds it.
func (c *Cluster) awaitContent(ctx context.Context, image *v1alpha1.Image, digest string) error {
	last := ""
	err := wait.PollUntilContextTimeout(ctx, tagInterval, tagLimit, true, func(ctx context.Context) (bool, error) {
		now, err := c.Lighter.LighterV1alpha1().Images(image.Namespace).Get(ctx, image.Name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		if made := meta.FindStatusCondition(now.Status.Conditions, v1alpha1.ImageBuilt); made != nil {
			last = ": " + made.Message
		}
		return now.Status.Digest == digest, nil
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return fmt.Errorf("the Image %q has no content after %s%s", image.Name, tagLimit, last)
	}
	return err
}
