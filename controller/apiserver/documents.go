package apiserver

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	genericapiserver "k8s.io/apiserver/pkg/server"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/handler3"
)

const (
	openAPIV2 = "/openapi/v2"
	openAPIV3 = "/openapi/v3"
)

// documents serves the OpenAPI documents. Upstream builds them at every start
// and keeps the trees they are made of, half of an idle server's heap. We build
// them when somebody asks first, which most servers see once a day, and keep
// their text, compressed as clients take it.
type documents struct {
	handler *genericapiserver.APIServerHandler
	v2      *openapicommon.Config
	v3      *openapicommon.OpenAPIV3Config
	started time.Time

	mu   sync.Mutex
	kept map[documentKey]document
}

type documentKey struct {
	path  string
	proto bool
}

// document is a text, compressed with gzip.
type document struct {
	packed []byte
	// etag is that of the JSON form, whatever the form: Vary tells them apart.
	etag string
}

// newDocuments is called when all kinds are installed. Nobody needs v3's models
// before the first request, so they are let go; upstream keeps copies that share
// their maps of properties, from which server-side apply's own tables were made.
func newDocuments(handler *genericapiserver.APIServerHandler, v2 *openapicommon.Config, v3 *openapicommon.OpenAPIV3Config) *documents {
	for _, definition := range v3.Definitions {
		clear(definition.Schema.Properties)
	}
	v3.Definitions = nil
	return &documents{handler: handler, v2: v2, v3: v3, started: time.Now(), kept: map[documentKey]document{}}
}

func (d *documents) install() {
	m := d.handler.NonGoRestfulMux
	m.Handle(openAPIV2, d)
	m.Handle(openAPIV3, d)
	m.HandlePrefix(openAPIV3+"/", d)
}

// forms are the media types of a document; the first is the one for clients
// without a wish. Protobuf has an old name too, which is not valid (RFC 6838).
func forms(path string) []runtime.SerializerInfo {
	version := "v2"
	if strings.HasPrefix(path, openAPIV3) {
		version = "v3"
	}
	proto := "com.github.proto-openapi.spec." + version
	form := func(subtype, served string) runtime.SerializerInfo {
		return runtime.SerializerInfo{MediaType: "application/" + served, MediaTypeType: "application", MediaTypeSubType: subtype}
	}
	return []runtime.SerializerInfo{
		form("json", "json"),
		form(proto+".v1.0+protobuf", proto+".v1.0+protobuf"), form(proto+"@v1.0+protobuf", proto+".v1.0+protobuf"),
	}
}

func (d *documents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	accepted := forms(r.URL.Path)
	if r.URL.Path == openAPIV3 {
		accepted = accepted[:1]
	}
	media, ok := negotiation.NegotiateMediaTypeOptions(r.Header.Get("Accept"), accepted, negotiation.DefaultEndpointRestrictions)
	if !ok {
		w.WriteHeader(http.StatusNotAcceptable)
		return
	}
	doc, err := d.get(r.Context(), documentKey{path: r.URL.Path, proto: media.Accepted.MediaTypeSubType != "json"})
	switch {
	case err != nil:
		responsewriters.InternalError(w, r, err)
		return
	case doc.packed == nil:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", media.Accepted.MediaType)
	if err := doc.serve(w, r, d.started); err != nil {
		responsewriters.InternalError(w, r, err)
	}
}

// serve writes the document as the client likes it. The parameter hash, which
// v3's index gives with each path, makes the answer one that never changes.
func (doc document) serve(w http.ResponseWriter, r *http.Request, modified time.Time) error {
	if hash := r.URL.Query().Get("hash"); hash != "" {
		if hash != doc.etag {
			http.Redirect(w, r, r.URL.Path+"?"+url.Values{"hash": {doc.etag}}.Encode(), http.StatusMovedPermanently)
			return nil
		}
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	}
	w.Header().Set("Etag", strconv.Quote(doc.etag))
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	body := doc.packed
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
	} else {
		var err error
		if body, err = unpack(doc.packed); err != nil {
			return err
		}
	}
	http.ServeContent(w, r, "", modified, bytes.NewReader(body))
	return nil
}

// get finds a document, or builds it together with those of its version.
func (d *documents) get(ctx context.Context, key documentKey) (document, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if doc, ok := d.kept[key]; ok {
		return doc, nil
	}
	// Building leaves a lot of garbage behind; an idle server should not keep it.
	defer debug.FreeOSMemory()
	plain := documentKey{path: key.path}
	if _, ok := d.kept[plain]; !ok {
		if err := d.build(ctx, key.path == openAPIV2); err != nil {
			return document{}, fmt.Errorf("build OpenAPI documents: %w", err)
		}
	}
	doc, ok := d.kept[plain]
	if !ok || !key.proto {
		return doc, nil
	}
	text, err := unpack(doc.packed)
	if err != nil {
		return document{}, err
	}
	convert := handler3.ToV3ProtoBinary
	if key.path == openAPIV2 {
		convert = handler.ToProtoBinary
	}
	if text, err = convert(text); err != nil {
		return document{}, fmt.Errorf("convert %s to protobuf: %w", key.path, err)
	}
	doc.packed = pack(text)
	d.kept[key] = doc
	return doc, nil
}

func pack(text []byte) []byte {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	// Writing to a buffer does not fail.
	_, _ = w.Write(text)
	_ = w.Close()
	return packed.Bytes()
}

func unpack(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
