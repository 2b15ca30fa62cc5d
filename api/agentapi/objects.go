package agentapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"k8s.io/client-go/rest"

	"lighter.dev/lighter/api/v1alpha1"
)

// The subresources of kind Image that the API server passes on to an agent.
const (
	SubresourceContent = "content"
	SubresourceDetails = "details"
	SubresourcePush    = "push"
	SubresourceCommit  = "commit"
)

// ObjectClient asks about the content of one Image object. The API server
// chooses the agent.
type ObjectClient struct{ endpoint }

// NewObjectClient leads to an Image object's subresources.
func NewObjectClient(config *rest.Config, namespace, name string) (*ObjectClient, error) {
	to, err := newEndpoint(config, "apis", v1alpha1.GroupName, v1alpha1.SchemeGroupVersion.Version, "namespaces", namespace, "images", name)
	return &ObjectClient{to}, err
}

// Details says what is in the image.
func (c *ObjectClient) Details(ctx context.Context) (ImageDetails, error) {
	var details ImageDetails
	err := c.get(ctx, SubresourceDetails, nil, &details)
	return details, err
}

// Content returns the image as an archive, which the caller closes.
func (c *ObjectClient) Content(ctx context.Context) (io.ReadCloser, error) {
	response, err := c.do(ctx, http.MethodGet, SubresourceContent, nil, nil)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// SendContent makes an archive the image's content: of images, of which ref
// chooses one, or of a root file system, which alone can be edited.
func (c *ObjectClient) SendContent(ctx context.Context, archive io.Reader, ref string, edits Edits, report func(Progress)) (Result, error) {
	values := query(ParamRef, ref)
	edits.AddTo(values)
	return c.stream(ctx, SubresourceContent, values, archive, report)
}

// Push sends the image to the registry in the name to, one of the object's tags.
func (c *ObjectClient) Push(ctx context.Context, to string, credentials Credentials, report func(Progress)) (Result, error) {
	body, err := json.Marshal(credentials)
	if err != nil {
		return Result{}, err
	}
	return c.stream(ctx, SubresourcePush, query(ParamTo, to), bytes.NewReader(body), report)
}

// Commit makes the file system of the container in spec.source.container the
// image's content.
func (c *ObjectClient) Commit(ctx context.Context, edits Edits, report func(Progress)) (Result, error) {
	values := query()
	edits.AddTo(values)
	return c.stream(ctx, SubresourceCommit, values, http.NoBody, report)
}
