package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// hostsOptions are the flags about the agent's local API: where it is asked about
// its images, containers and disk, also while the control plane is away.
type hostsOptions struct {
	addresses   []string // unix://PATH or tcp://ADDR:PORT
	socketGroup string
	tls         tlsFiles
}

const (
	flagHosts       = "hosts"
	flagSocketGroup = "socket-group"
	flagTLSCA       = "tls-ca"
	flagTLSCert     = "tls-cert"
	flagTLSKey      = "tls-key"

	schemeUnix = "unix://"
	schemeTCP  = "tcp://"
	// maxSocketPath is what fits into struct sockaddr_un, less the name under
	// which a socket is made before it takes its place.
	maxSocketPath = 80
)

func (o *hostsOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringSliceVar(&o.addresses, flagHosts, nil, "where this host alone can be asked, unix://PATH or tcp://ADDR:PORT (default unix://RUN-DIR/agent.sock)")
	flags.StringVar(&o.socketGroup, flagSocketGroup, "", "group whose members may use the sockets; with it they own this host (default root alone)")
	o.tls.addFlags(flags, "of --hosts tcp://")
}

// listenAddress is where the local API listens.
type listenAddress struct{ network, address string }

// listeners are the addresses to listen on. It touches no file.
func (o *hostsOptions) listeners(runDir string) ([]listenAddress, error) {
	texts := splitList(o.addresses)
	if len(texts) == 0 {
		texts = []string{schemeUnix + filepath.Join(runDir, "agent.sock")}
	}
	var errs flagErrors
	var out []listenAddress
	overTCP := ""
	for _, text := range texts {
		at, err := parseListen(text)
		if err == nil && slices.Contains(out, at) {
			err = fmt.Errorf("%s is given twice", text)
		}
		errs.wrong(flagHosts, err)
		if at.network == "tcp" {
			overTCP = text
		}
		out = append(out, at)
	}
	switch {
	case overTCP != "" && !o.tls.complete():
		errs.wrong(flagHosts, fmt.Errorf("%s needs --%s, --%s and --%s: who may use it owns this host, so both sides show certificates", overTCP, flagTLSCA, flagTLSCert, flagTLSKey))
	case overTCP == "" && o.tls != tlsFiles{}:
		errs.wrong(flagHosts, fmt.Errorf("no tcp:// among them, but --%s, --%s or --%s is given", flagTLSCA, flagTLSCert, flagTLSKey))
	}
	return out, errs.join()
}

func parseListen(text string) (listenAddress, error) {
	path, isUnix := strings.CutPrefix(text, schemeUnix)
	address, isTCP := strings.CutPrefix(text, schemeTCP)
	switch {
	case isUnix && !filepath.IsAbs(path):
		return listenAddress{}, fmt.Errorf("%q: want an absolute path, as in unix:///run/lighter/agent.sock", text)
	case isUnix && len(path) > maxSocketPath:
		return listenAddress{}, fmt.Errorf("%q: the path is longer than the %d bytes that a socket's may have", text, maxSocketPath)
	case isUnix:
		return listenAddress{"unix", filepath.Clean(path)}, nil
	case isTCP:
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return listenAddress{}, fmt.Errorf("%q: want an address and a port, as in tcp://10.0.0.1:2376", text)
		}
		return listenAddress{"tcp", at.String()}, nil
	}
	return listenAddress{}, fmt.Errorf("%q: want unix://PATH or tcp://ADDR:PORT", text)
}

// checkFiles looks at the certificates and the group.
func (o *hostsOptions) checkFiles() error {
	var errs flagErrors
	_, err := o.group()
	errs.wrong(flagSocketGroup, err)
	if o.tls.complete() {
		_, err = o.tls.server()
	}
	return errors.Join(errs.join(), err)
}

// group is the number of --socket-group, root's if there is none.
func (o *hostsOptions) group() (int, error) {
	if o.socketGroup == "" {
		return 0, nil
	}
	found, err := user.LookupGroup(o.socketGroup)
	if err != nil {
		return 0, fmt.Errorf("%q: %w", o.socketGroup, err)
	}
	return strconv.Atoi(found.Gid)
}

// tlsFiles are one side of mutual TLS.
type tlsFiles struct{ ca, cert, key string }

func (f *tlsFiles) addFlags(flags *pflag.FlagSet, of string) {
	flags.StringVar(&f.ca, flagTLSCA, "", "file with the CA (PEM) of the other side's certificates, "+of)
	flags.StringVar(&f.cert, flagTLSCert, "", "file with the certificate (PEM) to show, "+of)
	flags.StringVar(&f.key, flagTLSKey, "", "file with the certificate's key (PEM)")
}

func (f tlsFiles) complete() bool { return f.ca != "" && f.cert != "" && f.key != "" }

// server wants every client to show a certificate of the CA.
func (f tlsFiles) server() (*tls.Config, error) {
	pool, pair, err := f.load()
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}, err
}

// client wants the agent to show one of the CA, and nothing else.
func (f tlsFiles) client() (*tls.Config, error) {
	pool, pair, err := f.load()
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: pool}, err
}

// load reports every wrong file at once.
func (f tlsFiles) load() (*x509.CertPool, tls.Certificate, error) {
	var errs flagErrors
	pool := x509.NewCertPool()
	content, err := os.ReadFile(f.ca)
	if err == nil && !pool.AppendCertsFromPEM(content) {
		err = fmt.Errorf("%s holds no PEM certificate", f.ca)
	}
	errs.wrong(flagTLSCA, err)
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		err = fmt.Errorf("%s with --%s %s: %w", f.cert, flagTLSKey, f.key, err)
	}
	errs.wrong(flagTLSCert, err)
	return pool, pair, errs.join()
}
