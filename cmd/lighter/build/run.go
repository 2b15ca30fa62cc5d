package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	typed "lighter.dev/lighter/api/client/clientset/typed/api/v1alpha1"
	"lighter.dev/lighter/api/v1alpha1"
)

// manager is the field manager of what "lighter build" sets.
const manager = "lighter"

// Options are what the command line says.
type Options struct {
	// Tags are the image's names. Without any it is called after its source.
	Tags []string
	// Target is the stage to build; Args are "NAME=VALUE", or "NAME" for the
	// value in this process's environment.
	Target string
	Args   []string
	// Keep is false for a build whose result only goes elsewhere: its Image, if
	// it has no name, is removed again.
	Keep bool
	// DigestFile gets the digest, unless it is "".
	DigestFile string
	// Quiet prints the digest alone.
	Quiet bool
	// Build builds the Image and shows its own progress, unless again is true:
	// then it was built a moment ago and only has more names now.
	Build func(ctx context.Context, image string, c *Context, again bool) (digest string, err error)
	// Push sends one of the Image's names to its registry; nil does not.
	Push func(ctx context.Context, tag string) error
	// Images is the API of the namespace's Images.
	Images typed.ImageInterface
	Out    io.Writer
}

// Run builds c as an Image of the namespace.
func Run(ctx context.Context, c *Context, options Options) error {
	args, err := arguments(options.Args, os.LookupEnv)
	if err != nil {
		return err
	}
	spec := v1alpha1.ImageSpec{Source: c.Source, Dockerfile: c.Dockerfile, Target: options.Target, Args: args}
	plan, err := options.plan(ctx, c)
	if err != nil {
		return err
	}
	spec.Tags = plan.tags
	created, err := options.declare(ctx, plan, spec)
	if err != nil {
		return fmt.Errorf("declare Image %s: %w", plan.object, err)
	}
	digest, err := options.Build(ctx, plan.object, c, false)
	if created && len(options.Tags) == 0 && (err != nil || !options.Keep) {
		err = errors.Join(err, options.remove(context.WithoutCancel(ctx), plan.object))
	}
	if err != nil {
		return err
	}
	if err := options.move(ctx, c, plan, spec); err != nil {
		return err
	}
	return options.finish(ctx, plan, digest)
}

func (o Options) plan(ctx context.Context, c *Context) (plan, error) {
	list, err := o.Images.List(ctx, metav1.ListOptions{})
	if err != nil {
		return plan{}, fmt.Errorf("list Images: %w", err)
	}
	tags := o.Tags
	if len(tags) == 0 {
		tags = []string{nameless(c.describe() + "\x00" + o.Target)}
	}
	return choose(list.Items, tags)
}

// arguments are the values of ARG instructions. A name alone takes its value
// from the environment, and is left out if there is none, as with Docker.
func arguments(texts []string, env func(string) (string, bool)) (map[string]string, error) {
	args := map[string]string{}
	for _, text := range texts {
		name, value, given := strings.Cut(text, "=")
		if name == "" {
			return nil, fmt.Errorf("--build-arg %s: want NAME=VALUE", text)
		}
		if !given {
			if value, given = env(name); !given {
				continue
			}
		}
		args[name] = value
	}
	return args, nil
}

// declare makes the Image say what is built now.
func (o Options) declare(ctx context.Context, p plan, spec v1alpha1.ImageSpec) (created bool, err error) {
	if p.existing == nil {
		image := &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Name: p.object}, Spec: spec}
		_, err = o.Images.Create(ctx, image, metav1.CreateOptions{FieldManager: manager})
		if !apierrors.IsAlreadyExists(err) {
			return err == nil, err
		}
	}
	return false, o.change(ctx, p.object, func(image *v1alpha1.Image) { image.Spec = spec })
}

// change updates an Image, again if somebody else did meanwhile, and not at all
// if it says so already.
func (o Options) change(ctx context.Context, name string, edit func(*v1alpha1.Image)) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		image, err := o.Images.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		before := image.DeepCopy()
		edit(image)
		v1alpha1.SetImageDefaults(image)
		if sameSpec(before.Spec, image.Spec) {
			return nil
		}
		_, err = o.Images.Update(ctx, image, metav1.UpdateOptions{FieldManager: manager})
		return err
	})
}

func sameSpec(a, b v1alpha1.ImageSpec) bool {
	return a.Dockerfile == b.Dockerfile && a.Target == b.Target && maps.Equal(a.Args, b.Args) && slices.Equal(a.Tags, b.Tags) &&
		a.Source.Path == b.Source.Path && a.Source.Inline == b.Source.Inline && equality.Semantic.DeepEqual(a.Source.Git, b.Source.Git) &&
		a.Source.ConfigMap == nil && a.Source.Image == nil && a.Source.Archive == nil && a.Source.Container == nil
}

// move takes names away from other Images and gives them to this one, which then
// is built again, from the cache: whoever reads a name finds what it means.
func (o Options) move(ctx context.Context, c *Context, p plan, spec v1alpha1.ImageSpec) error {
	if len(p.moves) == 0 {
		return nil
	}
	for _, move := range p.moves {
		err := o.takeFrom(ctx, move)
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("move the name %s from Image %s: %w", short(move.name), move.image.Name, err)
		}
	}
	spec.Tags = p.all()
	if err := o.change(ctx, p.object, func(image *v1alpha1.Image) { image.Spec = spec }); err != nil {
		return fmt.Errorf("name Image %s: %w", p.object, err)
	}
	_, err := o.Build(ctx, p.object, c, true)
	return err
}

// takeFrom removes an Image that has no name left: it would get one by default.
func (o Options) takeFrom(ctx context.Context, move claim) error {
	if len(move.image.TagsWithout(move.name)) == 0 {
		return o.remove(ctx, move.image.Name)
	}
	return o.change(ctx, move.image.Name, func(image *v1alpha1.Image) { image.Spec.Tags = image.TagsWithout(move.name) })
}

func (o Options) remove(ctx context.Context, name string) error {
	if err := o.Images.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove Image %s: %w", name, err)
	}
	return nil
}

// finish says what was built, and pushes.
func (o Options) finish(ctx context.Context, p plan, digest string) error {
	if o.DigestFile != "" {
		if err := os.WriteFile(o.DigestFile, []byte(digest), 0o644); err != nil {
			return fmt.Errorf("--iidfile: %w", err)
		}
	}
	if o.Quiet || len(o.Tags) == 0 {
		fmt.Fprintln(o.Out, digest)
	} else {
		for _, tag := range p.all() {
			fmt.Fprintf(o.Out, "%s built: %s\n", tag, digest)
		}
	}
	if o.Push == nil {
		return nil
	}
	for _, tag := range p.all() {
		if err := o.Push(ctx, tag); err != nil {
			return err
		}
	}
	return nil
}
