package apiserver

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler3"
	openapiutil "k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"

	"lighter.dev/lighter/api/openapi"
)

// definitions are the OpenAPI models of the built-in kinds and ours. Where ours
// refer to upstream's, the generator writes Go's names; upstream uses the models'.
func definitions(ref openapicommon.ReferenceCallback) map[string]openapicommon.OpenAPIDefinition {
	all := generatedopenapi.GetOpenAPIDefinitions(ref)
	ours := openapi.GetOpenAPIDefinitions(func(path string) spec.Ref { return ref(modelName(path)) })
	for name, definition := range ours {
		for i, dependency := range definition.Dependencies {
			definition.Dependencies[i] = modelName(dependency)
		}
		all[name] = definition
	}
	return all
}

func modelName(name string) string {
	if strings.Contains(name, "/") {
		return openapiutil.ToRESTFriendlyName(name)
	}
	return name
}

// build makes the document of v2, or all of v3, with upstream's own code on a
// router that is thrown away.
func (d *documents) build(ctx context.Context, v2 bool) error {
	scratch := mux.NewPathRecorderMux("openapi")
	if v2 {
		_, swagger := routes.OpenAPI{Config: d.v2}.InstallV2(d.handler.GoRestfulContainer, scratch)
		text, err := swagger.MarshalJSON()
		if err != nil {
			return err
		}
		d.keep(openAPIV2, text)
		return nil
	}
	if _, ok := d.kept[documentKey{path: openAPIV3}]; ok {
		return nil // all of v3 is built, and the path is not among it
	}
	config := *d.v3
	config.Definitions = config.GetDefinitions(func(name string) spec.Ref {
		model, _ := config.GetDefinitionName(name)
		return spec.MustCreateRef("#/components/schemas/" + openapicommon.EscapeJsonPointer(model))
	})
	routes.OpenAPI{V3Config: &config}.InstallV3(d.handler.GoRestfulContainer, scratch)
	index, err := fetch(ctx, scratch, openAPIV3)
	if err != nil {
		return err
	}
	var listed handler3.OpenAPIV3Discovery
	if err := json.Unmarshal(index, &listed); err != nil {
		return err
	}
	for group := range listed.Paths {
		path := openAPIV3 + "/" + group
		text, err := fetch(ctx, scratch, path)
		if err != nil {
			return err
		}
		d.keep(path, text)
	}
	d.keep(openAPIV3, index)
	return nil
}

func (d *documents) keep(path string, text []byte) {
	d.kept[documentKey{path: path}] = document{packed: pack(text), etag: fmt.Sprintf("%X", sha512.Sum512(text))}
}

// fetch is a request to upstream's handler, without a connection.
func fetch(ctx context.Context, h http.Handler, path string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	w := &page{header: http.Header{}, status: http.StatusOK}
	h.ServeHTTP(w, r)
	if w.status != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, http.StatusText(w.status))
	}
	return w.text.Bytes(), nil
}

// page is an http.ResponseWriter that keeps what is written.
type page struct {
	header http.Header
	status int
	text   bytes.Buffer
}

func (p *page) Header() http.Header            { return p.header }
func (p *page) WriteHeader(status int)         { p.status = status }
func (p *page) Write(text []byte) (int, error) { return p.text.Write(text) }
