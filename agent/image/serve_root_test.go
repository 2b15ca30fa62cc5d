package image

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHandler(t *testing.T) {
	s := open(t, nil)
	img := importRootFS(t, s, "base", map[string]string{"a": random(5000)})
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	blob := "/content/" + img.Target.String()
	tests := []struct {
		method, path, rng string
		code              int
		body              string // has to be contained
		length            int64
	}{
		{"GET", blob, "", 200, `"schemaVersion":2`, -1},
		{"HEAD", blob, "", 200, "", -1},
		{"HEAD", blob + "?verify=1", "", 200, "", -1},
		{"GET", blob, "bytes=10-19", 206, "", 10},
		{"GET", blob, "bytes=99999-", 416, "", -1},
		{"GET", "/content/sha256:" + strings.Repeat("0", 64), "", 404, "", -1},
		{"GET", "/content/nonsense", "", 400, "", -1},
		{"GET", "/content/ref/docker.io/library/base:latest", "", 200, img.Target.String(), -1},
		{"GET", "/content/ref/docker.io/library/none:latest", "", 404, "", -1},
		{"POST", blob, "", 405, "", -1},
		{"GET", "/", "", 404, "", -1},
	}
	for _, tt := range tests {
		req, err := http.NewRequest(tt.method, srv.URL+tt.path, nil)
		must(t, err)
		if tt.rng != "" {
			req.Header.Set("Range", tt.rng)
		}
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != tt.code || !strings.Contains(string(body), tt.body) || (tt.length >= 0 && int64(len(body)) != tt.length) {
			t.Errorf("%s %s %s: %s, %d bytes, want %d", tt.method, tt.path, tt.rng, resp.Status, len(body), tt.code)
		}
	}
}
