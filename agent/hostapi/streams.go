package hostapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"lighter.dev/lighter/api/agentapi"
)

// maxCredentials bounds the body of a pull or push, in bytes.
const maxCredentials = 1 << 20

// stream serves work that reports as it goes on. A failure before the first
// report is a metav1.Status with its code.
func (h *handler) stream(do func(*http.Request, Report) (agentapi.Result, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		lines := newLines(w)
		result, err := do(r, lines.report)
		if err != nil {
			h.Log.Info("request failed", "path", r.URL.Path, "error", err)
		}
		lines.end(result, err)
	}
}

func (h *handler) pull(r *http.Request, report Report) (agentapi.Result, error) {
	q, err := query(r, agentapi.ParamRef)
	if err != nil {
		return agentapi.Result{}, err
	}
	auth, err := credentials(r)
	if err != nil {
		return agentapi.Result{}, err
	}
	return h.Images.Pull(r.Context(), q.Get(agentapi.ParamNamespace), q.Get(agentapi.ParamRef), auth, report)
}

func (h *handler) push(r *http.Request, report Report) (agentapi.Result, error) {
	q, err := query(r, agentapi.ParamRef)
	if err != nil {
		return agentapi.Result{}, err
	}
	auth, err := credentials(r)
	if err != nil {
		return agentapi.Result{}, err
	}
	return h.Images.Push(r.Context(), q.Get(agentapi.ParamNamespace), q.Get(agentapi.ParamRef), q.Get(agentapi.ParamTo), auth, report)
}

// importArchive must not report before it has read the whole body: HTTP/1.1
// servers stop reading a request once they answer it.
func (h *handler) importArchive(r *http.Request, report Report) (agentapi.Result, error) {
	q, err := query(r, agentapi.ParamNamespace, agentapi.ParamImage)
	if err != nil {
		return agentapi.Result{}, err
	}
	body := &body{Reader: r.Body}
	held := func(p agentapi.Progress) {
		if body.ended() {
			report(p)
		}
	}
	return h.Content.Import(r.Context(), q.Get(agentapi.ParamNamespace), q.Get(agentapi.ParamImage), q.Get(agentapi.ParamRef), agentapi.EditsOf(q), body, held)
}

func (h *handler) commit(r *http.Request, report Report) (agentapi.Result, error) {
	q, err := query(r, agentapi.ParamNamespace, agentapi.ParamImage, agentapi.ParamPod)
	if err != nil {
		return agentapi.Result{}, err
	}
	return h.Content.Commit(r.Context(), q.Get(agentapi.ParamNamespace), q.Get(agentapi.ParamImage),
		q.Get(agentapi.ParamPod), q.Get(agentapi.ParamContainer), agentapi.EditsOf(q), report)
}

// serveSave sends an archive. One that breaks off ends with the connection, so
// that its reader does not take it for whole.
func (h *handler) serveSave(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, agentapi.ParamRef)
	if err != nil {
		WriteError(w, err)
		return
	}
	out := &archiveWriter{ResponseWriter: w}
	err = h.Images.Save(r.Context(), out, q.Get(agentapi.ParamNamespace), q[agentapi.ParamRef]...)
	switch {
	case err == nil:
	case !out.begun:
		WriteError(w, err)
	default:
		h.Log.Warn("image archive broke off", "images", q[agentapi.ParamRef], "error", err)
		// The chunk that says "this was all" cannot be written any more.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
	}
}

// archiveWriter knows whether the answer has begun.
type archiveWriter struct {
	http.ResponseWriter
	begun bool
}

func (a *archiveWriter) Write(p []byte) (int, error) {
	if !a.begun {
		a.begun = true
		a.Header().Set("Content-Type", "application/x-tar")
	}
	return a.ResponseWriter.Write(p)
}

// credentials reads the body of a pull or push; none is well.
func credentials(r *http.Request) ([]agentapi.Credential, error) {
	var doc agentapi.Credentials
	err := json.NewDecoder(io.LimitReader(r.Body, maxCredentials)).Decode(&doc)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the request's body is no list of credentials: %v", err))
	}
	return doc.Credentials, nil
}
