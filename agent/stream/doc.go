// Package stream serves what people and the API server want from a running pod:
// logs, exec, attach and port-forward, on the paths that a kubelet serves, so that
// the upstream API server's pod subresources work unchanged.
//
//	/containerLogs/{namespace}/{pod}/{container}   logs.go, logreader.go
//	/exec/… /attach/… /run/…                       session.go
//	/portForward/{namespace}/{pod}                 portforward.go
//	/pods /healthz /metrics /stats/summary         observe.go
//
// exec, attach and port-forward speak SPDY/3.1 and WebSocket (v4 and v5 channel
// protocols, SPDY tunnelled in WebSocket); the protocols are
// k8s.io/cri-streaming's, what v5 needs is in translate.go. Who may ask is
// decided in authorize.go, before a request reaches any handler.
//
// The package knows pods by the [Pods] interface alone and containers by
// [Runtime]; cmd/lighter fills both.
package stream
