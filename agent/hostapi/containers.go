package hostapi

import (
	"net/http"

	"lighter.dev/lighter/api/agentapi"
)

// containerOf reads which container a request is about.
func containerOf(r *http.Request, more ...string) (agentapi.ContainerName, error) {
	q, err := query(r, append([]string{agentapi.ParamNamespace, agentapi.ParamPod}, more...)...)
	return agentapi.ContainerName{
		Namespace: q.Get(agentapi.ParamNamespace), Pod: q.Get(agentapi.ParamPod), Container: q.Get(agentapi.ParamContainer),
	}, err
}

func (h *handler) top(r *http.Request) ([]agentapi.Process, error) {
	name, err := containerOf(r)
	if err != nil {
		return nil, err
	}
	return h.Containers.Top(r.Context(), name)
}

func (h *handler) changes(r *http.Request) ([]agentapi.Change, error) {
	name, err := containerOf(r)
	if err != nil {
		return nil, err
	}
	found, err := h.Containers.Changes(r.Context(), name)
	if found == nil {
		found = []agentapi.Change{} // "null" is no list
	}
	return found, err
}

func (h *handler) stats(r *http.Request) ([]agentapi.ContainerUsage, error) {
	name, err := containerOf(r)
	if err != nil {
		return nil, err
	}
	found, err := h.Containers.Stats(r.Context(), name.Namespace, name.Pod)
	if found == nil {
		found = []agentapi.ContainerUsage{}
	}
	return found, err
}

func (h *handler) signal(r *http.Request) (struct{}, error) {
	name, err := containerOf(r, agentapi.ParamSignal)
	if err != nil {
		return struct{}{}, err
	}
	return struct{}{}, h.Containers.Signal(r.Context(), name, r.URL.Query().Get(agentapi.ParamSignal))
}
