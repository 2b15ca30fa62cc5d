package apply

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/util/csaupgrade"
	"k8s.io/client-go/util/retry"
)

// What "lighter build", "tag", "import" and their like set on an Image, they set as
// Manager too, but by updates, which are another owner to server-side apply. Who has
// a manifest of such an Image means it: what the verbs have set becomes apply's, and
// is gone if the manifest does not say it. Fields of anybody else stay conflicts.

// madeByVerb says whether an Image is such a one, and how its owner is changed: by
// a JSON patch, nil if there is nothing to do.
func madeByVerb(o object) (patch []byte, err error) {
	if !o.isImage() {
		return nil, nil
	}
	live, err := resource.NewHelper(o.Client, o.Mapping).Get(o.Namespace, o.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return changeOwner(live)
}

func changeOwner(live runtime.Object) ([]byte, error) {
	return csaupgrade.UpgradeManagedFieldsPatch(live, sets.New(Manager), Manager)
}

// adopt makes what the verbs have set apply's own.
func adopt(o object) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		patch, err := madeByVerb(o)
		if patch == nil || err != nil {
			return err
		}
		_, err = resource.NewHelper(o.Client, o.Mapping).Patch(o.Namespace, o.Name, types.JSONPatchType, patch, &metav1.PatchOptions{})
		return err
	})
}

// tryOut is a dry run. An Image that is to be adopted is tried as one by another
// name: until then, what the verb has set would stand beside what the manifest says.
func tryOut(o object, options Options) error {
	patch, err := madeByVerb(o)
	if err != nil {
		return err
	}
	if patch != nil {
		o = named(o, fmt.Sprintf("try-%s", rand.String(8)))
	}
	_, err = send(o, options, true)
	return err
}

// named is a copy of an object by another name.
func named(o object, name string) object {
	o = copied(o)
	o.Name = name
	o.content.SetName(name)
	return o
}
