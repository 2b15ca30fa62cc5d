package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"lighter.dev/lighter/cmd/lighter/containers"
)

// runFlags are those about the container as a whole. What it returns counts only
// if its flag is given.
func runFlags(f *pflag.FlagSet, o *containers.Options) (entrypoint *string, stopTimeout *int64) {
	f.BoolVarP(&o.Detach, "detach", "d", false, "do not stay with the container: print its name")
	f.BoolVarP(&o.Stdin, "interactive", "i", false, "keep the container's input open, and connect to it")
	f.BoolVarP(&o.TTY, "tty", "t", false, "give it a terminal")
	f.BoolVar(&o.Remove, "rm", false, "remove the container when it has ended")
	f.StringVar(&o.Name, "name", "", "name of the container; made up if empty")
	f.StringVar(&o.CIDFile, "cidfile", "", "file that gets the name")
	f.StringArrayVarP(&o.Env, "env", "e", nil, "environment: KEY=VALUE, or KEY with its value here")
	f.StringArrayVar(&o.EnvFile, "env-file", nil, "file with lines KEY=VALUE")
	f.StringArrayVarP(&o.Label, "label", "l", nil, "label: KEY=VALUE")
	entrypoint = f.String("entrypoint", "", "command instead of the image's entrypoint")
	f.StringVarP(&o.Workdir, "workdir", "w", "", "working directory")
	f.StringVarP(&o.Memory, "memory", "m", "", "limit of memory: 512m, 2g")
	f.StringVar(&o.MemoryReservation, "memory-reservation", "", "memory to keep free for it: 256m")
	f.StringVar(&o.CPUs, "cpus", "", "limit of processors: 1.5")
	f.StringVar(&o.Restart, "restart", "no", "restart policy: no, on-failure[:MAX], always or unless-stopped")
	f.StringVar(&o.StopSignal, "stop-signal", "", "signal to stop it with (default: the image's, or SIGTERM)")
	stopTimeout = f.Int64("stop-timeout", 10, "seconds from that signal to SIGKILL; -1 is for ever")
	f.StringVar(&o.Pull, "pull", "missing", "when to pull the image: missing, always or never")
	f.StringVar(&o.Node, "node", "", "host to run on; the cluster chooses if empty")
	f.StringVar(&o.Runtime, "runtime", "", "OCI runtime, one of the hosts' setting runtimes")
	f.StringVar(&o.Platform, "platform", "", "platform of the host: linux/arm64")
	return entrypoint, stopTimeout
}

func networkFlags(f *pflag.FlagSet, o *containers.NetworkOptions) {
	f.StringVar(&o.Kind, "network", "bridge", "bridge or overlay: the cluster's; host or none")
	f.StringVar(&o.Kind, "net", "bridge", "")
	_ = f.MarkHidden("net") // Docker's old name for it
	f.StringVarP(&o.Hostname, "hostname", "h", "", "host name; the container's name if empty")
	f.StringArrayVarP(&o.Publish, "publish", "p", nil, "publish ports: [[IP:]HOSTPORT[-LAST]:]PORT[-LAST][/udp]")
	f.StringArrayVar(&o.Hosts, "add-host", nil, "line of its /etc/hosts: NAME:IP")
	f.StringArrayVar(&o.DNS, "dns", nil, "name server instead of the cluster's, which knows Services")
	f.StringArrayVar(&o.DNSSearch, "dns-search", nil, "domain in which names are looked up, too")
	f.StringArrayVar(&o.DNSOptions, "dns-option", nil, "option of its /etc/resolv.conf: ndots:2")
}

func securityFlags(f *pflag.FlagSet, o *containers.SecurityOptions) {
	f.StringVarP(&o.User, "user", "u", "", "user: USER[:GROUP], by number or by the image's names")
	f.StringArrayVar(&o.Groups, "group-add", nil, "further group, by number or by the image's name")
	f.BoolVar(&o.ReadOnly, "read-only", false, "let it write to volumes only")
	f.BoolVar(&o.Privileged, "privileged", false, "take all fences away")
	f.StringSliceVar(&o.CapAdd, "cap-add", nil, "capability to add, or ALL")
	f.StringSliceVar(&o.CapDrop, "cap-drop", nil, "capability to drop, or ALL")
	f.StringArrayVar(&o.Options, "security-opt", nil, "no-new-privileges or seccomp=unconfined")
	f.StringArrayVar(&o.Ulimits, "ulimit", nil, "limit of its processes: NAME=SOFT[:HARD], such as nofile=1024")
	f.StringArrayVar(&o.Sysctls, "sysctl", nil, "setting of its namespaces' kernel: NAME=VALUE")
	f.StringVar(&o.PID, "pid", "", "host: see the host's processes")
	f.StringVar(&o.IPC, "ipc", "", "host: share memory with the host's processes")
}

func storageFlags(f *pflag.FlagSet, o *containers.StorageOptions) {
	f.StringArrayVarP(&o.Volumes, "volume", "v", nil, "mount /HOSTPATH:/PATH[:ro] or NAME:/PATH[:ro]; /PATH is an empty folder of its own")
	f.StringArrayVar(&o.Mounts, "mount", nil, "the same as type=bind|volume|tmpfs,source=SOURCE,target=/PATH[,readonly]")
	f.StringArrayVar(&o.Tmpfs, "tmpfs", nil, "file system in memory: /PATH[:size=64m]")
	f.StringVar(&o.ShmSize, "shm-size", "", "size of /dev/shm: 256m")
}

func healthFlags(f *pflag.FlagSet, o *containers.HealthOptions) {
	f.StringVar(&o.Command, "health-cmd", "", "shell command that succeeds if it is well")
	f.DurationVar(&o.Interval, "health-interval", 0, "time between checks (default 30s)")
	f.DurationVar(&o.Timeout, "health-timeout", 0, "time that a check may take (default 30s)")
	f.DurationVar(&o.StartPeriod, "health-start-period", 0, "time before the first check")
	f.Int32Var(&o.Retries, "health-retries", 0, "failures in a row that make it unhealthy (default 3)")
	f.BoolVar(&o.None, "no-healthcheck", false, "no check: HEALTHCHECK of images is not run in any case")
}

// unavailable are flags of "docker run" that people will try, and what to do instead.
var unavailable = map[string]string{
	"cgroup-parent": "the agent gives each pod a cgroup",
	"cpuset-cpus":   "say how much with --cpus",
	"device":        "give it all devices of its host with --privileged",
	"gpus":          "devices are not handed out",
	"init":          "let the image have an init as its entrypoint",
	"ip":            "addresses are the cluster's to give; a Service has one that stays",
	"link":          "containers reach one another by address, and by name with a Service (lighter expose)",
	"log-driver":    "the agent keeps the logs (lighter logs)",
	"log-opt":       "the agent's settings log-max-size and log-max-files hold for all containers",
	"mac-address":   "it follows from the container's address",
	"memory-swap":   "a container with a limit of memory does not swap",
	"network-alias": "give it a name with a Service (lighter expose)",
	"pids-limit":    "bound its memory: -m",
	"publish-all":   "say which ports: -p PORT",
	"userns":        "there are no user namespaces",
	"volumes-from":  "name the volumes: -v",
}

// refuseFlags defines them, so that the message is ours.
func refuseFlags(f *pflag.FlagSet) {
	short := map[string]string{"publish-all": "P"}
	alone := []string{"init", "publish-all"} // take no value
	for name := range unavailable {
		if slices.Contains(alone, name) {
			f.BoolP(name, short[name], false, "")
		} else {
			f.StringArray(name, nil, "")
		}
		_ = f.MarkHidden(name)
	}
}

// refused says all that is wrong.
func refused(f *pflag.FlagSet) error {
	var errs []error
	f.Visit(func(flag *pflag.Flag) {
		if text, there := unavailable[flag.Name]; there {
			errs = append(errs, fmt.Errorf("--%s is not supported: %s", flag.Name, text))
		}
	})
	return errors.Join(errs...)
}
