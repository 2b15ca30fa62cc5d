package main

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"lighter.dev/lighter/api/agentapi"
)

// hostFlags let a verb ask one host's agent instead of the cluster.
type hostFlags struct {
	host string
	tls  tlsFiles
}

const (
	// envHost is what --host says if it is not given.
	envHost = "LIGHTER_HOST"
	// envCertPath is a folder with ca.pem, cert.pem and key.pem for tcp://.
	envCertPath = "LIGHTER_CERT_PATH"
)

func (f *hostFlags) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&f.host, "host", "", "agent to ask instead of the cluster, unix://PATH or tcp://HOST:PORT (default $"+envHost+")")
	f.tls.addFlags(flags, "for --host tcp:// (default ca.pem, cert.pem and key.pem in $"+envCertPath+")")
}

// client is for the agent that --host or the environment names, nil if neither
// does.
func (f *hostFlags) client(getenv func(string) string) (*agentapi.Client, error) {
	from, host := "--host", f.host
	if host == "" {
		from, host = envHost, getenv(envHost)
	}
	if host == "" {
		return nil, nil
	}
	if path, ok := strings.CutPrefix(host, schemeUnix); ok && filepath.IsAbs(path) {
		return agentapi.NewSocketClient(path), nil
	}
	address, ok := strings.CutPrefix(host, schemeTCP)
	if u, err := url.Parse(host); !ok || err != nil || u.Port() == "" {
		return nil, usageError{fmt.Errorf("%s %q: want unix://PATH or tcp://HOST:PORT", from, host)}
	}
	files := f.tls.or(getenv(envCertPath))
	if !files.complete() {
		return nil, usageError{fmt.Errorf("%s %s: needs --%s, --%s and --%s, or %s", from, host, flagTLSCA, flagTLSCert, flagTLSKey, envCertPath)}
	}
	config, err := files.client()
	if err != nil {
		return nil, err
	}
	return agentapi.NewClient(&http.Client{Transport: &http.Transport{TLSClientConfig: config}}, &url.URL{Scheme: "https", Host: address}), nil
}

// or fills what is not given from a folder, if that is not "".
func (f tlsFiles) or(dir string) tlsFiles {
	if dir == "" {
		return f
	}
	for _, file := range []struct {
		to   *string
		name string
	}{{&f.ca, "ca.pem"}, {&f.cert, "cert.pem"}, {&f.key, "key.pem"}} {
		if *file.to == "" {
			*file.to = filepath.Join(dir, file.name)
		}
	}
	return f
}
