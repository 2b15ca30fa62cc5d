package servers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"lighter.dev/lighter/controller/pki"
	"lighter.dev/lighter/controller/store"
)

const (
	// changeLimit is how long a change of the membership may take.
	changeLimit = 10 * time.Second
	// maxRequest bounds a request, in bytes.
	maxRequest = 1 << 16
)

// Handler answers at Path. Who may do that is for the API server to decide,
// which asks RBAC before it gets here.
type Handler struct {
	Store     *store.Store
	Authority *pki.Authority
	Ranges    Ranges
	// Name is this server's.
	Name string
	// Leader is the name of the server whose reconcilers work; "" if unknown.
	Leader func(ctx context.Context) string
	Log    *slog.Logger
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), changeLimit)
	defer cancel()
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, Path), "/")
	switch {
	case r.Method == http.MethodPost && name == "":
		var request Request
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&request); err != nil {
			answer(w, nil, apierrors.NewBadRequest(err.Error()))
			return
		}
		reply, err := h.admit(ctx, request)
		answer(w, reply, err)
	case r.Method == http.MethodGet && name == "":
		list, err := h.list(ctx)
		answer(w, list, err)
	case r.Method == http.MethodDelete && name != "":
		answer(w, struct{}{}, h.remove(ctx, name))
	default:
		answer(w, nil, apierrors.NewMethodNotSupported(schema.GroupResource{Resource: "servers"}, r.Method))
	}
}

func (h *Handler) admit(ctx context.Context, request Request) (*Reply, error) {
	if err := h.check(request); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	reply := &Reply{}
	var err error
	if reply.Identity, err = h.Authority.Shared(); err != nil {
		return nil, err
	}
	if reply.Store, err = h.Store.Shared(); err != nil {
		return nil, err
	}
	if h.Store.External() {
		err = h.enlist(ctx, request.Server)
	} else {
		reply.Members, err = h.Store.Admit(ctx, request.Server)
	}
	if errors.Is(err, store.ErrNameTaken) {
		err = fmt.Errorf("%w: give this host another --node-name; or, if it is the same host and has lost its data, run 'lighter server remove %s' on another server first", err, request.Name)
	}
	if err != nil {
		return nil, err
	}
	h.Log.Info("a server joins", "name", request.Name, "address", request.Address, "etcd", request.PeerURL)
	return reply, nil
}

// check refuses what would only fail when the new server has a vote.
func (h *Handler) check(request Request) error {
	if problems := validation.IsDNS1123Subdomain(request.Name); len(problems) > 0 {
		return fmt.Errorf("--node-name %q: %s", request.Name, strings.Join(problems, "; "))
	}
	if _, _, err := net.SplitHostPort(request.Address); err != nil {
		return fmt.Errorf("address of the new server: %w", err)
	}
	switch {
	case request.Ranges != h.Ranges:
		return fmt.Errorf("this cluster has --cluster-cidr %s, --service-cidr %s and --cluster-domain %s: start the new server with the same", h.Ranges.ClusterCIDR, h.Ranges.ServiceCIDR, h.Ranges.Domain)
	case h.Store.External() && request.PeerURL != "":
		return errors.New("the servers of this cluster use an etcd of their own: start the new one with the same --etcd-endpoints, --etcd-ca, --etcd-cert and --etcd-key")
	case !h.Store.External() && request.PeerURL == "":
		return errors.New("the servers of this cluster hold the data themselves: start the new one without --etcd-endpoints")
	}
	return nil
}

// enlist registers a server with an external etcd, in which there are no members
// that would show that a name is taken.
func (h *Handler) enlist(ctx context.Context, server store.Server) error {
	known, err := h.Store.Servers(ctx)
	if err != nil {
		return err
	}
	have, taken := known[server.Name]
	if taken && have.Address != server.Address && probe(ctx, h.Authority, have.Address) == nil {
		return fmt.Errorf("%w: %s at %s", store.ErrNameTaken, server.Name, have.Address)
	}
	return h.Store.Register(ctx, server)
}

func (h *Handler) remove(ctx context.Context, name string) error {
	if name == h.Name {
		return apierrors.NewBadRequest(fmt.Sprintf("%s is the server that you are speaking to: ask another one (--server https://OTHER:6443)", name))
	}
	if err := h.Store.Remove(ctx, name); err != nil {
		return err
	}
	h.Log.Info("a server was taken out", "name", name)
	return nil
}

func (h *Handler) list(ctx context.Context) (*List, error) {
	known, err := h.Store.Servers(ctx)
	if err != nil {
		return nil, err
	}
	infos := merge(known, h.Store.Members(), h.Store.External())
	examine(ctx, h.Authority, infos)
	leader := h.Leader(ctx)
	for i := range infos {
		infos[i].Leader = leader != "" && infos[i].Name == leader
	}
	return &List{Servers: infos, Quorum: h.Store.Quorum(ctx)}, nil
}

// merge combines what servers say about themselves with what etcd knows.
func merge(known map[string]store.Server, members []store.Member, external bool) []Info {
	var infos []Info
	for _, server := range known {
		info := Info{Name: server.Name, Address: server.Address, Role: RoleJoining}
		if external {
			info.Role = RoleExternal
		}
		for _, m := range members {
			switch {
			case m.Name != server.Name:
			case m.Learner:
				info.Role = RoleLearner
			default:
				info.Role = RoleVoter
			}
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	return infos
}

// answer writes a reply, or an error in the form that Kubernetes' clients read.
func answer(w http.ResponseWriter, reply any, err error) {
	code := http.StatusOK
	if err != nil {
		status := statusOf(err)
		code, reply = int(status.Code), status
	}
	w.Header().Set("Content-Type", "application/json")
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	// The client has gone if this fails.
	_ = json.NewEncoder(w).Encode(reply)
}

func statusOf(err error) metav1.Status {
	var known apierrors.APIStatus
	status := metav1.Status{Status: metav1.StatusFailure, Message: err.Error(), Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError}
	switch {
	case errors.As(err, &known):
		status = known.Status()
	case errors.Is(err, store.ErrNameTaken), errors.Is(err, store.ErrAddressTaken), errors.Is(err, store.ErrQuorum):
		status.Code, status.Reason = http.StatusConflict, metav1.StatusReasonConflict
	case errors.Is(err, store.ErrNoServer):
		status.Code, status.Reason = http.StatusNotFound, metav1.StatusReasonNotFound
	case errors.Is(err, store.ErrNotNow), errors.Is(err, context.DeadlineExceeded):
		status.Code, status.Reason = http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable
	}
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return status
}
