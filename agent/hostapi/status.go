package hostapi

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/containerd/errdefs"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WriteError answers with an error as a metav1.Status document. Errors of the
// API keep their code, those of errdefs' kinds get theirs, others are 500.
func WriteError(w http.ResponseWriter, err error) {
	doc := statusOf(err)
	doc.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(doc.Code))
	// The client may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(doc)
}

func statusOf(err error) metav1.Status {
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		return known.Status()
	}
	status := metav1.Status{Status: metav1.StatusFailure, Message: err.Error()}
	for _, kind := range kinds {
		if kind.is(err) {
			status.Code, status.Reason = kind.code, kind.reason
			return status
		}
	}
	return apierrors.NewInternalError(err).Status()
}

// kinds are the errors that a client can tell apart. A registry's refusal is
// "forbidden" rather than "unauthorised": the client's right at this API is not
// in question.
var kinds = []struct {
	is     func(error) bool
	code   int32
	reason metav1.StatusReason
}{
	{errdefs.IsInvalidArgument, http.StatusBadRequest, metav1.StatusReasonBadRequest},
	{errdefs.IsNotFound, http.StatusNotFound, metav1.StatusReasonNotFound},
	{errdefs.IsConflict, http.StatusConflict, metav1.StatusReasonConflict},
	{errdefs.IsFailedPrecondition, http.StatusConflict, metav1.StatusReasonConflict},
	{errdefs.IsPermissionDenied, http.StatusForbidden, metav1.StatusReasonForbidden},
	{errdefs.IsUnauthorized, http.StatusForbidden, metav1.StatusReasonForbidden},
	{errdefs.IsUnavailable, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable},
}
