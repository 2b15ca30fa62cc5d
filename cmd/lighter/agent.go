package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/agent/image/reclaim"
)

// agentOptions are the flags of a host that runs containers, alone or beside a
// server.
type agentOptions struct {
	dataDir       string
	runDir        string
	logDir        string
	nodeName      string
	nodeIP        string
	port          int
	cgroupRoot    string
	storageDriver string
	runtime       string
	runtimes      []string
	labels        []string
	taints        []string
	maxPods       int64
	logMaxSize    string
	logMaxFiles   int
	registries    registryOptions
	hosts         hostsOptions
	imageGC       reclaim.Policy
	builds        buildOptions
}

// agentDaemonOptions are the flags of "lighter agent".
type agentDaemonOptions struct {
	daemonOptions
	agentOptions
	server string
	token  string
}

func newAgentCommand() *cobra.Command {
	options := &agentDaemonOptions{}
	cmd := &cobra.Command{
		Use: "agent", Short: "Make this host a member of a cluster and run containers on it", Args: cobra.NoArgs,
		Example: "  lighter agent --server https://SERVER:6443 --token $(lighter token create)",
		RunE:    func(cmd *cobra.Command, _ []string) error { return options.run(cmd.Context()) },
	}
	options.addFlags(cmd.Flags())
	bindConfig(cmd, agentConfigFile)
	return cmd
}

func (o *agentDaemonOptions) addFlags(flags *pflag.FlagSet) {
	o.daemonOptions.addFlags(flags)
	o.agentOptions.addFlags(flags)
	flags.StringVar(&o.server, "server", "", "URL of the cluster's API, https://HOST:6443")
	flags.StringVar(&o.token, "token", "", "join token, as 'lighter token create' prints it; not needed once the host has joined")
}

func (o *agentOptions) addFlags(flags *pflag.FlagSet) {
	hostname, _ := os.Hostname()
	flags.StringVar(&o.dataDir, "data-dir", "/var/lib/lighter", "folder for all that lasts")
	flags.StringVar(&o.runDir, "run-dir", "/run/lighter", "folder for all that ends with a reboot")
	flags.StringVar(&o.logDir, "pod-log-dir", "/var/log/pods", "folder of the containers' logs")
	flags.StringVar(&o.nodeName, "node-name", strings.ToLower(hostname), "this host's name in the cluster")
	flags.StringVar(&o.nodeIP, "node-ip", "", "this host's address towards the others (default: the one that leads there)")
	flags.IntVar(&o.port, "agent-port", 10250, "port of the agent's own HTTPS endpoint")
	flags.StringVar(&o.cgroupRoot, "cgroup-root", "/lighter", "cgroup above all pods")
	flags.StringVar(&o.storageDriver, "storage-driver", image.Overlayfs, "how container file systems are stored: "+strings.Join(image.Snapshotters(), ", "))
	flags.StringVar(&o.runtime, "runtime", "", "OCI runtime, name or path (default: crun, else runc)")
	flags.StringSliceVar(&o.runtimes, "runtimes", nil, "further OCI runtimes, NAME=PROGRAM; a pod asks for one by spec.runtimeClassName, a container by 'lighter run --runtime'")
	flags.StringSliceVar(&o.labels, "node-labels", nil, "labels of the Node, key=value")
	flags.StringSliceVar(&o.taints, "node-taints", nil, "taints of the Node at its first registration, key[=value]:effect")
	flags.Int64Var(&o.maxPods, "max-pods", 110, "how many pods this host takes")
	flags.StringVar(&o.logMaxSize, "log-max-size", "10Mi", "size from which a container's log is rotated")
	flags.IntVar(&o.logMaxFiles, "log-max-files", 5, "how many logs of a container are kept, with the current one")
	flags.IntVar(&o.imageGC.High, reclaim.FlagHigh, 85, "how full the disk of images may get, in percent, before unused ones are removed; 100 never removes them on that account")
	flags.IntVar(&o.imageGC.Low, reclaim.FlagLow, 80, "to how many percent they are removed")
	flags.DurationVar(&o.imageGC.MaxAge, reclaim.FlagMaxAge, 0, "how long an image may lie unused, such as 720h; 0 is no limit")
	o.registries.addFlags(flags)
	o.hosts.addFlags(flags)
	o.builds.addFlags(flags)
}

func (o *agentDaemonOptions) run(ctx context.Context) error {
	started := time.Now()
	log, err := o.logger(os.Stderr)
	if err != nil {
		return err
	}
	tuneMemory()
	if err := o.check(); err != nil {
		return err
	}
	host, err := newHost(o.agentOptions, joinable{url: o.server, token: o.token}, log)
	if err != nil {
		return err
	}
	err = host.Run(ctx, func() { announce(log, started, "agent") })
	_ = sdNotify(notifyStopping)
	return err
}

// check reports every wrong flag at once.
func (o *agentDaemonOptions) check() error {
	var errs flagErrors
	if u, err := url.Parse(o.server); err != nil || u.Scheme != "https" || u.Host == "" {
		errs.wrong("server", fmt.Errorf("%q: want the URL of the cluster's API, https://HOST:6443", o.server))
	}
	return errors.Join(errs.join(), o.agentOptions.check(), o.checkFiles())
}

// address is this host's address towards a server (or towards others in
// general, if there is no server).
func (o *agentOptions) address(server string) (netip.Addr, error) {
	if o.nodeIP == "" {
		return defaultNodeIP(server)
	}
	addr, err := netip.ParseAddr(o.nodeIP)
	if err == nil && !addr.Is4() {
		err = errors.New("the overlay carries IPv4 only")
	}
	return addr, err
}

// check reports every wrong flag at once. It looks at nothing but the values.
func (o *agentOptions) check() error {
	var errs flagErrors
	if problems := validation.IsDNS1123Subdomain(o.nodeName); len(problems) > 0 {
		errs.wrong("node-name", fmt.Errorf("%q: %s", o.nodeName, strings.Join(problems, "; ")))
	}
	if !slices.Contains(image.Snapshotters(), o.storageDriver) {
		errs.wrong("storage-driver", fmt.Errorf("%q: want one of %s", o.storageDriver, strings.Join(image.Snapshotters(), ", ")))
	}
	_, err := o.moreRuntimes()
	errs.wrong("runtimes", err)
	_, err = o.nodeLabels()
	errs.wrong("node-labels", err)
	_, err = o.nodeTaints()
	errs.wrong("node-taints", err)
	_, err = o.logBytes()
	errs.wrong("log-max-size", err)
	if o.logMaxFiles < 2 {
		errs.wrong("log-max-files", fmt.Errorf("%d: want 2 or more, as a rotated log is read until it is rotated again", o.logMaxFiles))
	}
	o.imageGC.Check(errs.wrong)
	_, err = o.hosts.listeners(o.runDir)
	return errors.Join(errs.join(), o.registries.check(), o.builds.check(), err)
}

// checkFiles looks at the files that flags name.
func (o *agentOptions) checkFiles() error {
	return errors.Join(o.registries.checkFiles(), o.hosts.checkFiles())
}

// logBytes is --log-max-size in bytes.
func (o *agentOptions) logBytes() (int64, error) {
	size, err := resource.ParseQuantity(o.logMaxSize)
	if err != nil || size.Value() <= 0 {
		return 0, fmt.Errorf("%q: want a size such as 10Mi", o.logMaxSize)
	}
	return size.Value(), nil
}

// moreRuntimes are the programs of --runtimes by their names.
func (o *agentOptions) moreRuntimes() (map[string]string, error) {
	programs := map[string]string{}
	for _, text := range splitList(o.runtimes) {
		name, program, _ := strings.Cut(text, "=")
		switch problems := validation.IsDNS1123Subdomain(name); {
		case program == "":
			return nil, fmt.Errorf("%q: want NAME=PROGRAM", text)
		case len(problems) > 0:
			return nil, fmt.Errorf("%q: %s", text, strings.Join(problems, "; "))
		case programs[name] != "" && programs[name] != program:
			return nil, fmt.Errorf("two programs for %s, %s and %s", name, programs[name], program)
		}
		programs[name] = program
	}
	return programs, nil
}

func (o *agentOptions) nodeLabels() (map[string]string, error) {
	labels := map[string]string{}
	for _, text := range splitList(o.labels) {
		key, value, _ := strings.Cut(text, "=")
		problems := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...)
		if len(problems) > 0 {
			return nil, fmt.Errorf("%q: %s", text, strings.Join(problems, "; "))
		}
		labels[key] = value
	}
	return labels, nil
}

func (o *agentOptions) nodeTaints() ([]corev1.Taint, error) {
	var taints []corev1.Taint
	for _, text := range splitList(o.taints) {
		rest, effect, _ := strings.Cut(text, ":")
		key, value, _ := strings.Cut(rest, "=")
		problems := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...)
		switch corev1.TaintEffect(effect) {
		case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
		default:
			problems = append(problems, "the effect has to be NoSchedule, PreferNoSchedule or NoExecute")
		}
		if len(problems) > 0 {
			return nil, fmt.Errorf("%q: %s", text, strings.Join(problems, "; "))
		}
		taints = append(taints, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
	}
	return taints, nil
}
