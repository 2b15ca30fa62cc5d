package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Handler is what peers ask:
//
//	GET, HEAD /content/{digest}   a blob, with ranges (RFC 9110); with ?verify=1
//	                              it is checked first, and dropped if damaged;
//	                              with ?namespace= it is an image, given if that
//	                              namespace may use it
//	GET       /content/turn/{digest}  whether a neighbour may fetch a blob from its
//	                              registry, see turn.go
//	GET       /content/ref/{name} what a full name means here; builds have none
//
// It trusts its caller: who may ask is decided where it is mounted.
func (s *Store) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /content/{digest}", s.serveBlob)
	mux.HandleFunc("GET /content/turn/{digest}", s.serveTurn)
	mux.HandleFunc("GET /content/ref/{name...}", s.serveName)
	return mux
}

func (s *Store) serveBlob(w http.ResponseWriter, r *http.Request) {
	dgst, err := digest.Parse(r.PathValue("digest"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx := s.in(r.Context())
	if q := r.URL.Query(); q.Has("namespace") {
		if _, err := s.find(ctx, q.Get("namespace"), dgst); err != nil {
			serveError(w, err)
			return
		}
	}
	ra, err := s.content.ReaderAt(ctx, ocispec.Descriptor{Digest: dgst})
	if err != nil {
		serveError(w, err)
		return
	}
	defer ra.Close()
	if r.URL.Query().Get("verify") != "" && !s.intact(ctx, dgst, ra) {
		http.Error(w, "blob was damaged and is dropped", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+dgst.String()+`"`)
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(ra, 0, ra.Size()))
}

// intact hashes a blob and deletes it if the disk changed it. The next Ensure
// of its images finds them incomplete and fetches it again.
func (s *Store) intact(ctx context.Context, dgst digest.Digest, ra content.ReaderAt) bool {
	if verify(ra, dgst) == nil {
		return true
	}
	if err := s.drop(ctx, dgst); err != nil {
		s.log.Error("damaged blob stays", "digest", dgst, "error", err)
	}
	return false
}

// verify hashes a blob.
func verify(ra content.ReaderAt, dgst digest.Digest) error {
	verifier := dgst.Verifier()
	_, err := io.Copy(verifier, io.NewSectionReader(ra, 0, ra.Size()))
	if err != nil || !verifier.Verified() {
		return errors.Join(fmt.Errorf("blob %s is %w", dgst, errDamaged), err)
	}
	return nil
}

func (s *Store) serveName(w http.ResponseWriter, r *http.Request) {
	ctx := s.in(r.Context())
	name := r.PathValue("name")
	if _, _, built := splitBuilt(name); built {
		serveError(w, errdefs.ErrNotFound)
		return
	}
	rec, err := s.images.Get(ctx, name)
	if err == nil {
		_, err = s.inspect(ctx, name, rec.Target)
	}
	if err != nil {
		serveError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(named{Target: rec.Target, Origin: rec.Labels[labelOrigin]}); err != nil {
		s.log.Debug("peer left", "error", err)
	}
}

func serveError(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	if errdefs.IsNotFound(err) {
		code = http.StatusNotFound
	}
	http.Error(w, err.Error(), code)
}
