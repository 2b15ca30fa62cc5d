package build

import (
	"context"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// The session headers by which BuildKit finds a client's session, and the copy of
// the client's folder that it kept from last time (session.headerSession…).
const (
	sessionHeader   = "x-docker-expose-session-uuid"
	sharedKeyHeader = "x-docker-expose-session-sharedkey"
)

// scoped puts the Image in front of an identity that a client has chosen, so
// that it cannot name another Image's session or build: a session is a way to
// somebody's files and secrets.
func scoped(namespace, name, id string) string {
	if id == "" {
		return ""
	}
	return namespace + "/" + name + "/" + id
}

// scopeSession does the same to the headers of a session. The shared key is of
// the namespace only: Images built from one folder share its copy. With another
// namespace's key, one could have its files by naming their sizes and times only.
func scopeSession(ctx context.Context, namespace, name string) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	md = md.Copy()
	md.Set(sharedKeyHeader, namespace+"/"+first(md, sharedKeyHeader))
	md.Set(sessionHeader, scoped(namespace, name, first(md, sessionHeader)))
	return metadata.NewIncomingContext(ctx, md)
}

func first(md metadata.MD, header string) string {
	if all := md.Get(header); len(all) > 0 {
		return all[0]
	}
	return ""
}

// scopedSession is a session's stream with another context.
type scopedSession struct {
	grpc.BidiStreamingServer[controlapi.BytesMessage, controlapi.BytesMessage]
	ctx context.Context
}

// Context carries the client's headers.
func (s scopedSession) Context() context.Context { return s.ctx }
