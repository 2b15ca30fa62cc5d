package apiserver

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"lighter.dev/lighter/api/v1alpha1"
)

// ownProvider installs the group lighter.dev, as upstream's providers install theirs.
type ownProvider struct {
	agents     kubeletclient.ConnectionInfoGetter
	routes     imageRoutes
	containers containerRoutes
	log        *slog.Logger
}

func (ownProvider) GroupName() string { return v1alpha1.GroupName }

func (p ownProvider) NewRESTStorage(source serverstorage.APIResourceConfigSource, getter generic.RESTOptionsGetter) (genericapiserver.APIGroupInfo, error) {
	info := genericapiserver.NewDefaultAPIGroupInfo(v1alpha1.GroupName, legacyscheme.Scheme, legacyscheme.ParameterCodec, legacyscheme.Codecs)
	images, status, err := newImageStorage(getter)
	if err != nil {
		return info, err
	}
	find := func(ctx context.Context, name string) (*v1alpha1.Image, error) {
		object, err := images.Get(ctx, name, &metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return object.(*v1alpha1.Image), nil
	}
	kind := func() runtime.Object { return &v1alpha1.Image{} }
	asks := func(options func() runtime.Object, routes map[string]route[*v1alpha1.Image]) rest.Storage {
		return &agentREST[*v1alpha1.Image]{get: find, agents: p.agents, kind: kind, options: options, routes: routes, log: p.log}
	}
	const get, post = http.MethodGet, http.MethodPost
	type routes = map[string]route[*v1alpha1.Image]
	storage := map[string]rest.Storage{
		"images":         images,
		"images/status":  status,
		"images/build":   asks(func() runtime.Object { return &v1alpha1.ImageBuildOptions{} }, routes{post: p.routes.build}),
		"images/content": asks(func() runtime.Object { return &v1alpha1.ImageContentOptions{} }, routes{post: p.routes.takeContent, get: p.routes.giveContent}),
		"images/details": asks(nil, routes{get: p.routes.details}),
		"images/push":    asks(func() runtime.Object { return &v1alpha1.ImagePushOptions{} }, routes{post: p.routes.push}),
		"images/commit":  asks(func() runtime.Object { return &v1alpha1.ImageCommitOptions{} }, routes{post: p.routes.commit}),
	}
	maps.Copy(storage, p.containers.storage(p.agents, p.log))
	info.VersionedResourcesStorageMap[v1alpha1.SchemeGroupVersion.Version] = storage
	return info, nil
}

// imageREST is the collection; its status is written through imageStatusREST.
type imageREST struct{ *genericregistry.Store }

// ShortNames and Categories are kubectl's: "get img", "get all".
func (imageREST) ShortNames() []string { return []string{"img"} }
func (imageREST) Categories() []string { return []string{"all"} }

type imageStatusREST struct{ store *genericregistry.Store }

func (imageStatusREST) New() runtime.Object { return &v1alpha1.Image{} }

// Destroy leaves the shared store to imageREST.
func (imageStatusREST) Destroy() {}

func (r imageStatusREST) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return r.store.Get(ctx, name, options)
}

func (r imageStatusREST) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	// A status is never the reason to create an object.
	return r.store.Update(ctx, name, info, create, update, false, options)
}

func (r imageStatusREST) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return r.store.GetResetFields()
}

func (r imageStatusREST) ConvertToTable(ctx context.Context, object runtime.Object, options runtime.Object) (*metav1.Table, error) {
	return r.store.ConvertToTable(ctx, object, options)
}

func newImageStorage(getter generic.RESTOptionsGetter) (imageREST, imageStatusREST, error) {
	strategy := imageStrategy{legacyscheme.Scheme, names.SimpleNameGenerator}
	store := &genericregistry.Store{
		NewFunc:                   func() runtime.Object { return &v1alpha1.Image{} },
		NewListFunc:               func() runtime.Object { return &v1alpha1.ImageList{} },
		DefaultQualifiedResource:  v1alpha1.Resource("images"),
		SingularQualifiedResource: v1alpha1.Resource("image"),
		CreateStrategy:            strategy,
		UpdateStrategy:            strategy,
		DeleteStrategy:            strategy,
		ResetFieldsStrategy:       strategy,
		TableConvertor:            imageTable{rest.NewDefaultTableConvertor(v1alpha1.Resource("images"))},
	}
	if err := store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: getter}); err != nil {
		return imageREST{}, imageStatusREST{}, fmt.Errorf("storage of images: %w", err)
	}
	statusStore := *store
	statusStore.UpdateStrategy = imageStatusStrategy{strategy}
	statusStore.ResetFieldsStrategy = imageStatusStrategy{strategy}
	return imageREST{store}, imageStatusREST{&statusStore}, nil
}

// imageStrategy says what a user may change: all but the status.
type imageStrategy struct {
	runtime.ObjectTyper
	names.NameGenerator
}

func (imageStrategy) NamespaceScoped() bool                                     { return true }
func (imageStrategy) AllowCreateOnUpdate(context.Context) bool                  { return false }
func (imageStrategy) AllowUnconditionalUpdate(context.Context) bool             { return true }
func (imageStrategy) Canonicalize(runtime.Object)                               {}
func (imageStrategy) WarningsOnCreate(context.Context, runtime.Object) []string { return nil }
func (imageStrategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

func (imageStrategy) PrepareForCreate(_ context.Context, obj runtime.Object) {
	image := obj.(*v1alpha1.Image)
	image.Status = v1alpha1.ImageStatus{}
	image.Generation = 1
	// The name is final only now, where generateName was given.
	v1alpha1.SetImageDefaults(image)
}

func (imageStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	image, before := obj.(*v1alpha1.Image), old.(*v1alpha1.Image)
	image.Status = before.Status
	image.Generation = before.Generation
	if !apiequality.Semantic.DeepEqual(image.Spec, before.Spec) {
		image.Generation++
	}
}

func (imageStrategy) Validate(_ context.Context, obj runtime.Object) field.ErrorList {
	return v1alpha1.ValidateImageSpec(&obj.(*v1alpha1.Image).Spec, field.NewPath("spec"))
}

func (s imageStrategy) ValidateUpdate(ctx context.Context, obj, _ runtime.Object) field.ErrorList {
	return s.Validate(ctx, obj)
}

func (imageStrategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return resetFields("status")
}

func resetFields(name string) map[fieldpath.APIVersion]*fieldpath.Set {
	return map[fieldpath.APIVersion]*fieldpath.Set{
		fieldpath.APIVersion(v1alpha1.SchemeGroupVersion.String()): fieldpath.NewSet(fieldpath.MakePathOrDie(name)),
	}
}

// imageStatusStrategy lets only the status change.
type imageStatusStrategy struct{ imageStrategy }

func (imageStatusStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	image, before := obj.(*v1alpha1.Image), old.(*v1alpha1.Image)
	image.Spec = before.Spec
	image.Labels, image.OwnerReferences, image.Finalizers = before.Labels, before.OwnerReferences, before.Finalizers
}

func (imageStatusStrategy) ValidateUpdate(context.Context, runtime.Object, runtime.Object) field.ErrorList {
	return nil
}

func (imageStatusStrategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return resetFields("spec")
}

// imageTable is what "kubectl get images" shows.
type imageTable struct{ fallback rest.TableConvertor }

var imageColumns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the Image"},
	{Name: "Tags", Type: "string", Description: "Names that containers use"},
	{Name: "Source", Type: "string", Description: "Where its content comes from"},
	{Name: "Digest", Type: "string", Description: "Start of the digest of its content"},
	{Name: "Built", Type: "string", Description: "Outcome of the last build"},
	{Name: "Node", Type: "string", Description: "Node that built it"},
	{Name: "Age", Type: "string", Description: "Time since the Image was created"},
}

func (t imageTable) ConvertToTable(ctx context.Context, object, options runtime.Object) (*metav1.Table, error) {
	table := &metav1.Table{}
	switch obj := object.(type) {
	case *v1alpha1.Image:
		table.ResourceVersion = obj.ResourceVersion
		table.Rows = append(table.Rows, imageRow(obj))
	case *v1alpha1.ImageList:
		table.ResourceVersion, table.Continue, table.RemainingItemCount = obj.ResourceVersion, obj.Continue, obj.RemainingItemCount
		for i := range obj.Items {
			table.Rows = append(table.Rows, imageRow(&obj.Items[i]))
		}
	default:
		return t.fallback.ConvertToTable(ctx, object, options)
	}
	if opts, ok := options.(*metav1.TableOptions); !ok || !opts.NoHeaders {
		table.ColumnDefinitions = imageColumns
	}
	return table, nil
}

func imageRow(image *v1alpha1.Image) metav1.TableRow {
	built := "Waiting"
	if c := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ImageBuilt); c != nil {
		built = c.Reason
	}
	if meta.IsStatusConditionTrue(image.Status.Conditions, v1alpha1.ImageBuilding) {
		built = "Building"
	}
	_, digest, _ := strings.Cut(image.Status.Digest, ":")
	const shown = 12
	age := "<unknown>"
	if !image.CreationTimestamp.IsZero() {
		age = duration.HumanDuration(time.Since(image.CreationTimestamp.Time))
	}
	return metav1.TableRow{
		Object: runtime.RawExtension{Object: image},
		Cells:  []any{image.Name, strings.Join(image.Spec.Tags, ","), image.Spec.Source.Describe(), digest[:min(shown, len(digest))], built, image.Status.NodeName, age},
	}
}
