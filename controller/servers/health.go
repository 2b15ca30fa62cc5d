package servers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"lighter.dev/lighter/controller/pki"
)

// ServerName is a name in the certificate of every server: whatever address a
// client reaches one by, this is who it has to find there.
const ServerName = "kubernetes"

// probeLimit is how long a healthy server may take to say so.
const probeLimit = time.Second

// examine asks every server how it is.
func examine(ctx context.Context, authority *pki.Authority, infos []Info) {
	var group sync.WaitGroup
	for i := range infos {
		group.Go(func() {
			err := probe(ctx, authority, infos[i].Address)
			if infos[i].Healthy = err == nil; err != nil {
				infos[i].Problem = err.Error()
			}
		})
	}
	group.Wait()
}

// probe asks a server whether it is ready, as one that may know.
func probe(ctx context.Context, authority *pki.Authority, address string) error {
	pair, err := tls.LoadX509KeyPair(authority.KubeletClientCert())
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority.Cert)
	return get(ctx, &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: ServerName, Certificates: []tls.Certificate{pair},
	}, "https://"+address+"/readyz")
}

func get(ctx context.Context, config *tls.Config, url string) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	const enough = 1 << 10
	text, err := io.ReadAll(io.LimitReader(response.Body, enough))
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %s", response.Status, failedChecks(string(text)))
}

// failedChecks picks what is wrong out of an answer of /readyz.
func failedChecks(text string) string {
	var failed []string
	for line := range strings.Lines(text) {
		if name, found := strings.CutPrefix(line, "[-]"); found {
			name, _, _ = strings.Cut(name, " ")
			failed = append(failed, strings.TrimSpace(name))
		}
	}
	if len(failed) == 0 {
		return strings.TrimSpace(text)
	}
	return strings.Join(failed, ", ")
}
