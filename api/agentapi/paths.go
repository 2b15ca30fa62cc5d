package agentapi

// The paths of an agent. Parameters are in the query; {…} below are in the path.
//
//	GET  /images                 [namespace]                    → []Image
//	GET  /images/inspect         namespace, ref                 → ImageDetails
//	GET  /images/save            namespace, ref (repeatable)    → an OCI and Docker archive (tar)
//	POST /images/pull            namespace, ref        Credentials → Progress…
//	POST /images/push            namespace, ref, [to]  Credentials → Progress…
//	POST /images/import          namespace, image, [ref], [edits]  archive  → Progress…
//	POST /images/commit          namespace, image, pod, container, [edits]  → Progress…
//	POST /images/remove          ref, [force]                   → Removed
//	POST /images/prune           [all], [until]                 → Removed
//	GET  /containers/top         namespace, pod, [container]    → []Process
//	GET  /containers/changes     namespace, pod, [container]    → []Change
//	GET  /containers/stats       namespace, pod                 → []ContainerUsage
//	POST /containers/signal      namespace, pod, [container], signal
//	GET  /system/usage                                          → Usage
//
// "namespace" says in whose name it is asked: what Image objects of that
// namespace declare, it sees under those names; without it, only what was pulled.
// "edits" are author, message, and change (repeatable): see Edits.
const (
	PathImages  = "/images"
	PathInspect = "/images/inspect"
	PathSave    = "/images/save"
	PathPull    = "/images/pull"
	PathPush    = "/images/push"
	PathImport  = "/images/import"
	PathCommit  = "/images/commit"
	PathRemove  = "/images/remove"
	PathPrune   = "/images/prune"
	// PathContainers is above the paths about containers.
	PathContainers = "/containers"
	PathTop        = PathContainers + "/top"
	PathChanges    = PathContainers + "/changes"
	PathStats      = PathContainers + "/stats"
	PathSignal     = PathContainers + "/signal"
	PathUsage      = "/system/usage"
)

// The query parameters.
const (
	// ParamNamespace is that of the Image objects that count.
	ParamNamespace = "namespace"
	// ParamRef is a reference as a user writes it. For an import it chooses one
	// image of an archive that holds several.
	ParamRef = "ref"
	// ParamTo is the name under which a push arrives in its registry, if not ref.
	ParamTo = "to"
	// ParamImage is metadata.name of the Image object whose content is made.
	ParamImage = "image"
	// ParamPod and ParamContainer name a container.
	ParamPod       = "pod"
	ParamContainer = "container"
	// ParamSignal is the name of a signal: "HUP", "SIGHUP".
	ParamSignal = "signal"
	// ParamAuthor, ParamMessage and ParamChange are those of Edits.
	ParamAuthor  = "author"
	ParamMessage = "message"
	ParamChange  = "change"
	// ParamForce removes also what stopped containers use.
	ParamForce = "force"
	// ParamAll prunes every unused image, not only those without a name.
	ParamAll = "all"
	// ParamUntil spares what came within that time: a Go duration ("24h").
	ParamUntil = "until"
)
