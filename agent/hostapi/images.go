package hostapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"lighter.dev/lighter/api/agentapi"
)

// answer serves a function that gives one document.
func answer[T any](do func(*http.Request) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		doc, err := do(r)
		if err != nil {
			WriteError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(doc) // the client went away
	}
}

func (h *handler) list(r *http.Request) ([]agentapi.Image, error) {
	found, err := h.Images.Images(r.Context(), r.URL.Query().Get(agentapi.ParamNamespace))
	if found == nil {
		found = []agentapi.Image{} // "null" is no list
	}
	return found, err
}

func (h *handler) details(r *http.Request) (agentapi.ImageDetails, error) {
	q, err := query(r, agentapi.ParamRef)
	if err != nil {
		return agentapi.ImageDetails{}, err
	}
	return h.Images.Details(r.Context(), q.Get(agentapi.ParamNamespace), q.Get(agentapi.ParamRef))
}

func (h *handler) remove(r *http.Request) (agentapi.Removed, error) {
	q, err := query(r, agentapi.ParamRef)
	if err != nil {
		return agentapi.Removed{}, err
	}
	force, err := flag(q, agentapi.ParamForce)
	if err != nil {
		return agentapi.Removed{}, err
	}
	return h.Images.RemoveImage(r.Context(), q.Get(agentapi.ParamRef), force)
}

func (h *handler) prune(r *http.Request) (agentapi.Removed, error) {
	q := r.URL.Query()
	all, err := flag(q, agentapi.ParamAll)
	if err != nil {
		return agentapi.Removed{}, err
	}
	var until time.Duration
	if text := q.Get(agentapi.ParamUntil); text != "" {
		if until, err = time.ParseDuration(text); err != nil || until < 0 {
			return agentapi.Removed{}, apierrors.NewBadRequest(fmt.Sprintf("parameter %s: %q is no duration: want for example 24h", agentapi.ParamUntil, text))
		}
	}
	return h.Images.PruneImages(r.Context(), all, until)
}

func (h *handler) usage(r *http.Request) (agentapi.Usage, error) {
	return h.Disk.Usage(r.Context())
}

// query gives the parameters of a request, of which some have to be there.
func query(r *http.Request, needed ...string) (url.Values, error) {
	q := r.URL.Query()
	var missing []string
	for _, name := range needed {
		if q.Get(name) == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s %s wants the parameters %s", r.Method, r.URL.Path, strings.Join(missing, ", ")))
	}
	return q, nil
}

// flag reads a parameter that is true or false; one without a value is true.
func flag(q url.Values, name string) (bool, error) {
	text := q.Get(name)
	if text == "" {
		return q.Has(name), nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, apierrors.NewBadRequest(fmt.Sprintf("parameter %s: %q is neither true nor false", name, text))
	}
	return on, nil
}
