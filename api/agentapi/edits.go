package agentapi

import "net/url"

// Edits are what a command changes about the image that it makes: "lighter
// commit" and "lighter import".
type Edits struct {
	// Author is kept in the configuration, Message in its history (OCI
	// image-spec).
	Author, Message string
	// Changes are instructions of a Dockerfile that concern the configuration
	// alone, such as "CMD [\"sleep\", \"1d\"]".
	Changes []string
}

// AddTo writes the edits into the parameters of a request.
func (e Edits) AddTo(values url.Values) {
	if e.Author != "" {
		values.Set(ParamAuthor, e.Author)
	}
	if e.Message != "" {
		values.Set(ParamMessage, e.Message)
	}
	if len(e.Changes) > 0 {
		values[ParamChange] = e.Changes
	}
}

// EditsOf reads them there.
func EditsOf(values url.Values) Edits {
	return Edits{Author: values.Get(ParamAuthor), Message: values.Get(ParamMessage), Changes: values[ParamChange]}
}
