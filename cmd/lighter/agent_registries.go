package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/spf13/pflag"

	"lighter.dev/lighter/agent/image"
)

// registryOptions are the flags about registries. Those with a HOST may be
// repeated.
type registryOptions struct {
	defaultHost string
	mirrors     []string // HOST=URL
	insecure    []string // HOST
	authorities []string // HOST=FILE
}

const (
	flagDefaultRegistry  = "default-registry"
	flagRegistryMirror   = "registry-mirror"
	flagInsecureRegistry = "insecure-registry"
	flagRegistryCA       = "registry-ca"
)

func (o *registryOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.defaultHost, flagDefaultRegistry, "", "registry HOST of image names that name none (default docker.io)")
	flags.StringSliceVar(&o.mirrors, flagRegistryMirror, nil, "HOST=URL to ask before the registry HOST; repeated for one HOST, they are asked in that order")
	flags.StringSliceVar(&o.insecure, flagInsecureRegistry, nil, "registry HOST that may speak plain HTTP or show any certificate")
	flags.StringSliceVar(&o.authorities, flagRegistryCA, nil, "HOST=FILE with certificate authorities (PEM) to trust for the registry or mirror HOST, besides the system's")
}

// registries are the settings by registry host. It touches no file.
func (o *registryOptions) registries() (map[string]image.Registry, error) {
	var errs flagErrors
	out := map[string]image.Registry{}
	for _, text := range splitList(o.insecure) {
		host, err := registryHost(text)
		errs.wrong(flagInsecureRegistry, err)
		setting := out[host]
		setting.Insecure = true
		out[host] = setting
	}
	for _, text := range splitList(o.authorities) {
		host, file, err := registryPair(text, "FILE")
		setting := out[host]
		switch {
		case err != nil:
		case setting.Insecure:
			err = fmt.Errorf("%q clashes with --%s %s, which trusts any certificate; remove one of them", text, flagInsecureRegistry, host)
		case setting.CAFile != "" && setting.CAFile != file:
			err = fmt.Errorf("two files for %s, %s and %s; put the certificates into one", host, setting.CAFile, file)
		}
		errs.wrong(flagRegistryCA, err)
		setting.CAFile = file
		out[host] = setting
	}
	for _, text := range splitList(o.mirrors) {
		host, mirror, err := registryPair(text, "URL")
		setting := out[host]
		switch {
		case err != nil:
		case slices.Contains(setting.Mirrors, mirror):
			err = fmt.Errorf("%s is given twice for %s", mirror, host)
		default:
			err = checkMirror(mirror)
		}
		errs.wrong(flagRegistryMirror, err)
		setting.Mirrors = append(setting.Mirrors, mirror)
		out[host] = setting
	}
	return out, errs.join()
}

// check reports every wrong value at once.
func (o *registryOptions) check() error {
	var errs flagErrors
	if o.defaultHost != "" {
		_, err := registryHost(o.defaultHost)
		errs.wrong(flagDefaultRegistry, err)
	}
	_, err := o.registries()
	return errors.Join(errs.join(), err)
}

// checkFiles reads what the flags name, so that a wrong path is told at the start
// and not by the first pull.
func (o *registryOptions) checkFiles() error {
	var errs flagErrors
	registries, _ := o.registries() // check tells
	for host, setting := range registries {
		if setting.CAFile == "" {
			continue
		}
		content, err := os.ReadFile(setting.CAFile)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(content) {
			err = fmt.Errorf("%s, for %s, holds no PEM certificate", setting.CAFile, host)
		}
		errs.wrong(flagRegistryCA, err)
	}
	return errs.join()
}

// registryHost reads a registry's host as image names spell it, with its port if
// they do.
func registryHost(text string) (string, error) {
	named, err := reference.ParseNormalizedNamed(text + "/image")
	if err != nil || strings.Contains(text, "/") {
		return "", fmt.Errorf("%q: want a registry as image names spell it, such as registry.example:5000", text)
	}
	if reference.Path(named) == text+"/image" {
		return "", fmt.Errorf("%q: in image names that is no registry, as it has neither a dot nor a port", text)
	}
	return reference.Domain(named), nil
}

func registryPair(text, what string) (host, value string, err error) {
	host, value, found := strings.Cut(text, "=")
	if !found || value == "" {
		return "", "", fmt.Errorf("%q: want HOST=%s", text, what)
	}
	host, err = registryHost(host)
	return host, value, err
}

func checkMirror(mirror string) error {
	u, err := url.Parse(mirror)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("%q: want a URL such as https://mirror.example", mirror)
	}
	return nil
}
