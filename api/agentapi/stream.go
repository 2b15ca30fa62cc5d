package agentapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// maxError bounds how much of an error's body is read.
const maxError = 64 << 10

// do sends a request; an answer other than 2xx becomes an error.
func (e endpoint) do(ctx context.Context, method, path string, values url.Values, body io.Reader) (*http.Response, error) {
	to := e.base.JoinPath(path)
	to.RawQuery = values.Encode()
	request, err := http.NewRequestWithContext(ctx, method, to.String(), body)
	if err != nil {
		return nil, err
	}
	response, err := e.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer response.Body.Close()
	return nil, failure(response)
}

// failure is the error that an answer holds: a metav1.Status, or plain text from
// whoever stands between.
func failure(response *http.Response) error {
	content, err := io.ReadAll(io.LimitReader(response.Body, maxError))
	if err != nil {
		return fmt.Errorf("%s: %w", response.Status, err)
	}
	var status metav1.Status
	if json.Unmarshal(content, &status) == nil && status.Kind == "Status" {
		return apierrors.FromObject(&status)
	}
	text := strings.TrimSpace(string(content))
	return apierrors.NewGenericServerResponse(response.StatusCode, response.Request.Method, schema.GroupResource{}, "", text, 0, true)
}

func (e endpoint) get(ctx context.Context, path string, values url.Values, into any) error {
	response, err := e.do(ctx, http.MethodGet, path, values, nil)
	if err != nil {
		return err
	}
	return decode(response, into)
}

func (e endpoint) post(ctx context.Context, path string, values url.Values, into any) error {
	response, err := e.do(ctx, http.MethodPost, path, values, http.NoBody)
	if err != nil {
		return err
	}
	return decode(response, into)
}

func decode(response *http.Response, into any) error {
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("%s: read the answer: %w", response.Request.URL.Path, err)
	}
	return nil
}

// stream posts a body and follows the lines of the answer until the result.
func (e endpoint) stream(ctx context.Context, path string, values url.Values, body io.Reader, report func(Progress)) (Result, error) {
	response, err := e.do(ctx, http.MethodPost, path, values, body)
	if err != nil {
		return Result{}, err
	}
	defer response.Body.Close()
	lines := json.NewDecoder(response.Body)
	for {
		var line Progress
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return Result{}, errors.New("the agent broke off before the result: it may have been restarted; try again")
		} else if err != nil {
			return Result{}, fmt.Errorf("read progress: %w", err)
		}
		switch {
		case line.Error != "":
			return Result{}, errors.New(line.Error)
		case line.Done != nil:
			return *line.Done, nil
		case report != nil:
			report(line)
		}
	}
}
