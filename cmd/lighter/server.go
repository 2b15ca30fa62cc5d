package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
)

// serverOptions are the flags of "lighter server".
type serverOptions struct {
	daemonOptions
	agent agentOptions

	bind          string
	port          int
	names         []string
	clusterCIDR   string
	serviceCIDR   string
	clusterDomain string
	etcd          etcdOptions
	peerPort      int
	join          joinOptions
	noAgent       bool
}

// etcdOptions name an etcd cluster of the user's.
type etcdOptions struct {
	endpoints                 []string
	caFile, certFile, keyFile string
}

func newServerCommand() *cobra.Command {
	options := &serverOptions{}
	cmd := &cobra.Command{
		Use: "server", Short: "Run the control plane, and an agent beside it", Args: cobra.NoArgs,
		Long: `Runs the control plane: etcd, the Kubernetes API on port 6443, reconcilers and
the scheduler. Unless told otherwise it is also an agent, so one server is a
whole cluster. The admin's kubeconfig is DATA-DIR/server/admin.kubeconfig.

With --join it becomes a further server of a cluster, which then has no single
point of failure: of 3 servers any 2 carry on. Have an odd number of them.`,
		Example: `  lighter server
  lighter token create            # for: lighter agent --server https://SERVER:6443 --token TOKEN
  lighter token create --server   # for: lighter server --join https://SERVER:6443 --token TOKEN`,
		RunE: func(cmd *cobra.Command, _ []string) error { return options.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	options.daemonOptions.addFlags(flags)
	options.agent.addFlags(flags)
	options.addFlags(flags)
	bindConfig(cmd, serverConfigFile)
	cmd.AddCommand(newServerList(), newServerRemove())
	return cmd
}

func (o *serverOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.bind, "bind", "0.0.0.0", "address on which the API is served")
	flags.IntVar(&o.port, "port", 6443, "port on which the API is served")
	flags.StringSliceVar(&o.names, "tls-san", nil, "further names and addresses by which clients call this server")
	flags.StringVar(&o.clusterCIDR, "cluster-cidr", "10.42.0.0/16", "addresses of pods")
	flags.StringVar(&o.serviceCIDR, "service-cidr", "10.43.0.0/16", "addresses of services")
	flags.StringVar(&o.clusterDomain, "cluster-domain", "cluster.local", "DNS domain of services")
	flags.StringSliceVar(&o.etcd.endpoints, "etcd-endpoints", nil, "URLs of an etcd cluster to use instead of the built-in etcd")
	flags.StringVar(&o.etcd.caFile, "etcd-ca", "", "file with the CA of that etcd's certificates")
	flags.StringVar(&o.etcd.certFile, "etcd-cert", "", "file with the certificate to show to that etcd")
	flags.StringVar(&o.etcd.keyFile, "etcd-key", "", "file with the certificate's key")
	flags.IntVar(&o.peerPort, "etcd-peer-port", 2380, "port for the built-in etcd of other servers; used when there are any")
	flags.StringVar(&o.join.url, "join", "", "URL of a server whose cluster this one joins, https://HOST:6443")
	flags.StringVar(&o.join.token, "token", "", "token for --join, as 'lighter token create --server' prints it; not needed once this server has joined")
	flags.BoolVar(&o.noAgent, "no-agent", false, "run no containers on this host")
}

// run serves until ctx ends.
func (o *serverOptions) run(ctx context.Context) error {
	started := time.Now()
	log, err := o.logger(os.Stderr)
	if err != nil {
		return err
	}
	tuneMemory()
	settings, err := o.resolve()
	if err != nil {
		return err
	}
	plane := newControlPlane(settings, log)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return plane.Run(ctx) })
	group.Go(func() error {
		select {
		case <-plane.Ready():
			log.Info("API is ready", "address", settings.url(), "after", time.Since(started).Round(time.Millisecond))
		case <-ctx.Done():
			return nil
		}
		if o.noAgent {
			announce(log, started, "server")
		}
		return nil
	})
	if !o.noAgent {
		host, err := newHost(o.agent, joinable{url: settings.url(), newToken: plane.newToken}, log)
		if err != nil {
			return err
		}
		group.Go(func() error {
			plane.settle(ctx)
			return host.Run(ctx, func() { announce(log, started, "server") })
		})
	}
	err = group.Wait()
	_ = sdNotify(notifyStopping)
	return err
}

// serverSettings are options that have been looked at.
type serverSettings struct {
	name        string // among the servers: that of the node
	dataDir     string // of the server, without the agent's
	bind        netip.Addr
	port        int
	advertise   netip.Addr
	names       []string
	ips         []net.IP
	clusterCIDR netip.Prefix
	serviceCIDR *net.IPNet
	domain      string
	etcd        etcdOptions
	peerPort    int
	join        joinOptions
}

// url is how agents on other hosts reach the API.
func (s serverSettings) url() string {
	return "https://" + s.address()
}

// resolve reports every wrong flag at once.
func (o *serverOptions) resolve() (serverSettings, error) {
	s := serverSettings{
		name: o.agent.nodeName, dataDir: filepath.Join(o.agent.dataDir, "server"), port: o.port, domain: o.clusterDomain,
		etcd: o.etcd, peerPort: o.peerPort, join: o.join,
	}
	var errs flagErrors
	var err error
	s.bind, err = netip.ParseAddr(o.bind)
	errs.wrong("bind", err)
	if o.port < 1 || o.port > 65535 {
		errs.wrong("port", fmt.Errorf("%d is not between 1 and 65535", o.port))
	}
	if o.peerPort < 1 || o.peerPort > 65535 {
		errs.wrong("etcd-peer-port", fmt.Errorf("%d is not between 1 and 65535", o.peerPort))
	}
	errs.wrong("join", o.join.check())
	s.clusterCIDR, err = netip.ParsePrefix(o.clusterCIDR)
	errs.wrong("cluster-cidr", err)
	_, s.serviceCIDR, err = net.ParseCIDR(o.serviceCIDR)
	errs.wrong("service-cidr", err)
	if err == nil && s.clusterCIDR.IsValid() && s.clusterCIDR.Overlaps(netip.MustParsePrefix(s.serviceCIDR.String())) {
		errs.wrong("service-cidr", fmt.Errorf("%s overlaps --cluster-cidr %s", o.serviceCIDR, o.clusterCIDR))
	}
	errs.wrong("etcd-endpoints", o.etcd.check())
	s.advertise, err = o.agent.address("")
	errs.wrong("node-ip", err)
	if !o.noAgent {
		errs = append(errs, o.agent.check(), o.agent.checkFiles())
	}
	if err := errs.join(); err != nil {
		return s, err
	}
	o.subjects(&s)
	return s, nil
}

// subjects lists what the server's certificate is for.
func (o *serverOptions) subjects(s *serverSettings) {
	s.names = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + s.domain, o.agent.nodeName}
	first := netip.MustParsePrefix(s.serviceCIDR.String()).Addr().Next()
	s.ips = []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback, s.advertise.AsSlice(), first.AsSlice()}
	for _, name := range splitList(o.names) {
		if ip := net.ParseIP(name); ip != nil {
			s.ips = append(s.ips, ip)
		} else {
			s.names = append(s.names, name)
		}
	}
}

func (o joinOptions) check() error {
	switch u, err := url.Parse(o.url); {
	case o.url == "" && o.token != "":
		return errors.New("missing, but --token is given")
	case o.url != "" && (err != nil || u.Scheme != "https" || u.Host == ""):
		return fmt.Errorf("%q: want the URL of a server, https://HOST:6443", o.url)
	}
	return nil
}

func (o etcdOptions) check() error {
	tls := o.caFile != "" || o.certFile != "" || o.keyFile != ""
	switch {
	case len(o.endpoints) == 0 && tls:
		return errors.New("missing, but --etcd-ca, --etcd-cert or --etcd-key is given")
	case (o.certFile == "") != (o.keyFile == ""):
		return errors.New("give both --etcd-cert and --etcd-key, or neither")
	}
	for _, endpoint := range o.endpoints {
		if !strings.HasPrefix(endpoint, "https://") {
			return fmt.Errorf("%q: want https://HOST:PORT, since everything that the cluster knows travels there", endpoint)
		}
	}
	return nil
}
