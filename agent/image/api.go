package image

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/agentapi"
)

// Pull fetches what a name means in its registry now, as "docker pull" does, or an
// Image object's content from the host that has it. report may be nil.
func (s *Store) Pull(ctx context.Context, namespace, ref string, auth []agentapi.Credential, report func(agentapi.Progress)) (agentapi.Result, error) {
	req := Request{Namespace: namespace, Ref: ref, Policy: corev1.PullAlways, Auth: fromAPI(auth)}
	if report != nil {
		req.Progress = func(p Progress) {
			if p.Blob.Digest != "" {
				report(p.Blob.line())
			}
		}
	}
	img, err := s.Ensure(ctx, req)
	if err != nil {
		return agentapi.Result{}, err
	}
	return agentapi.Result{Name: img.Name, Digest: img.Target.String(), Size: img.LayerSize}, nil
}

// line says it in Docker's words.
func (b BlobProgress) line() agentapi.Progress {
	line := agentapi.Progress{ID: b.Digest.String(), Status: "Downloading", Current: b.Done, Total: b.Total}
	switch {
	case b.Present:
		line.Status = "Already exists"
	case b.Done == b.Total:
		line.Status = "Download complete"
	}
	return line
}

func fromAPI(auth []agentapi.Credential) []Credential {
	out := make([]Credential, 0, len(auth))
	for _, c := range auth {
		out = append(out, Credential(c))
	}
	return out
}
