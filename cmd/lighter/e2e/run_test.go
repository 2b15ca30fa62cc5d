package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestDockerRun(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	t.Run("verbs", func(t *testing.T) {
		for name, run := range map[string]func(t *testing.T, d dock){
			"foreground": runForeground, "detached": runDetached, "signals": runSignals, "network": runNetworks, "flags": runFlags,
			"volumes": runVolumes, "mounts": runMounts, "limits": runLimits, "refused": runRefused, "restart policies": runPolicies,
			"ports": runPorts, "users": runUsers, "names": runNames, "health": runHealth, "stop": runStop,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(t, dock{t, d.ns})
			})
		}
	})
}

func runForeground(t *testing.T, d dock) {
	r := d.try("run", "--name", "fore", "--rm", "toolbox", "sh", "-c", "echo out; echo err >&2; exit 7")
	if r.code != 7 || r.out != "out\n" || !strings.Contains(r.err, "err\n") {
		t.Errorf("%+v", r)
	}
	d.nothing("fore")
	// However soon it ends, nothing is lost.
	for range 5 {
		d.prints("quick", "run", "--rm", "toolbox", "echo", "quick")
	}
	// Without --rm it stays, with its log.
	d.prints("stays", "run", "--name", "stays", "toolbox", "echo", "stays")
	d.prints("stays", "logs", "stays")
	big := strings.Repeat("0123456789abcdef", 1<<14)
	k := tool{"lighter", shared.binary}
	if r := k.try(t, big, d.args([]string{"run", "--rm", "-i", "toolbox", "cat"})...); r.code != 0 || r.out != big {
		t.Errorf("256 KiB through cat: exit code %d, %d bytes, %s", r.code, len(r.out), r.err)
	}
}

func runDetached(t *testing.T, d dock) {
	d.prints("back", "run", "-d", "--name", "back", "toolbox")
	if d.status("back").State.Running == nil {
		t.Error("it does not run when the command returns")
	}
	madeUp := d.do("run", "-d", "--rm", "toolbox", "sleep", "1")
	if parts := strings.Split(madeUp, "-"); len(parts) != 2 {
		t.Errorf("the name that was made up: %q", madeUp)
	}
	d.nothing(madeUp) // though nobody is with it
	d.fails(125, []string{"run", "-d", "--name", "back", "toolbox"}, "already", "lighter rm back")
}

// runSignals: those to the command are the container's.
func runSignals(t *testing.T, d dock) {
	cmd := tool{"lighter", shared.binary}.command(t, time.Minute, d.args([]string{"run", "--rm", "--name", "signalled", "toolbox", "sh", "-c", graceful})...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "it says hello", func() error {
		if r := d.try("logs", "signalled"); !strings.Contains(r.out, "hello") {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d, want the container's 3", code)
	}
	d.nothing("signalled")
}

func runNetworks(t *testing.T, d dock) {
	d.do("run", "-d", "--name", "web", "--node", "host-2", "-p", "18301:80", "toolbox", "sh", "-c", "echo published > /www/index.html; exec httpd -f -p 80 -h /www")
	address := getPod(t, d.ns, "web").Status.HostIP
	eventually(t, 20*time.Second, "the port answers on another host", func() error {
		return pageFrom("host-3", address+":18301", "published")
	})
	d.fails(125, []string{"run", "-d", "--name", "web2", "--node", "host-2", "-p", "18301:80", "toolbox"}, "free ports")
	d.nothing("web2")
	d.prints("host-3", "run", "--rm", "--network", "host", "--node", "host-3", "toolbox", "hostname")
	d.prints("lo", "run", "--rm", "--network", "none", "toolbox", "sh", "-c", "ls /sys/class/net")
	d.fails(125, []string{"run", "--network", "macvlan", "toolbox"}, "use --network host, or publish ports")
	// Bridge and overlay are the one network of the cluster.
	d.do("run", "-d", "--name", "server", "--network", "overlay", "--node", "host-1", "toolbox", "sh", "-c", "echo across > /www/index.html; exec httpd -f -p 80 -h /www")
	ip := getPod(t, d.ns, "server").Status.PodIP
	eventually(t, 20*time.Second, "a container on another host reaches it", func() error {
		if r := d.try("run", "--rm", "--network", "bridge", "--node", "host-3", "toolbox", "fetch", ip, "80"); strings.TrimSpace(r.out) != "across" {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}

// pageFrom fetches a page on a host and compares it.
func pageFrom(host, at, want string) error {
	page, err := tryOnHost(host, "busybox", "wget", "-qO-", "http://"+at+"/")
	if err == nil && strings.TrimSpace(page) != want {
		err = errOutput(page)
	}
	return err
}

// runPorts: those that nobody has named, and ranges.
func runPorts(t *testing.T, d dock) {
	serve := []string{"toolbox", "sh", "-c", "echo $HOSTNAME > /www/index.html; httpd -p 81 -h /www; exec httpd -f -p 80 -h /www"}
	answers := func(at, want string) {
		t.Helper()
		eventually(t, 20*time.Second, "it answers at "+at, func() error { return pageFrom("host-3", at, want) })
	}
	for _, name := range []string{"one", "two"} {
		d.do(append([]string{"run", "-d", "--name", name, "--node", "host-1", "-p", "80"}, serve...)...)
		at := d.do("port", name, "80")
		answers(at, name)
		_, port, _ := strings.Cut(at, ":")
		d.prints("80/tcp -> "+at, "port", name)
		contains(t, "lighter ps", d.do("ps"), "0.0.0.0:"+port+"->80/tcp")
	}
	d.do(append([]string{"run", "-d", "--name", "range", "--node", "host-2", "-p", "18310-18311:80-81", "-p", "127.0.0.1:18310:53/udp"}, serve...)...)
	host := getPod(t, d.ns, "range").Status.HostIP
	for _, port := range []string{":18310", ":18311"} {
		answers(host+port, "range")
	}
	d.prints("127.0.0.1:18310", "port", "range", "53/udp")
	d.fails(1, []string{"port", "range", "82"}, "not published")
}

// runUsers: names are those of the image's files.
func runUsers(t *testing.T, d dock) {
	show := []string{"toolbox", "sh", "-c", "echo $(id -u) $(id -g) $(id -G)"}
	for want, flags := range map[string][]string{
		"65534 65534 65534 50": {"-u", "nobody"},
		"65534 50 50":          {"-u", "nobody:staff"},
		"12 50 50":             {"-u", "12:staff"},
		"12 34 34 50 77":       {"-u", "12:34", "--group-add", "staff", "--group-add", "77"},
	} {
		d.prints(want, slices.Concat([]string{"run", "--rm"}, flags, show)...)
	}
	d.fails(125, []string{"run", "--name", "unknown", "-u", "nosuch", "toolbox"}, `the image's /etc/passwd has no "nosuch"`)
	d.fails(125, []string{"run", "--name", "unknown", "-u", "nobody:nosuch", "toolbox"}, `the image's /etc/group has no "nosuch"`)
	d.nothing("unknown")
	// An image that is committed of it has the same user.
	d.do("run", "--name", "named", "-u", "nobody:staff", "toolbox", "id", "-u")
	d.do("commit", "named", "as-nobody")
	d.prints("65534", "run", "--rm", "as-nobody")
}

// runNames: what the files in /etc say.
func runNames(t *testing.T, d dock) {
	hosts := d.do("run", "--rm", "--add-host", "db.example:192.0.2.7", "toolbox", "cat", "/etc/hosts")
	contains(t, "/etc/hosts", hosts, "192.0.2.7\tdb.example")
	d.prints("search shop.example\nnameserver 192.0.2.53\noptions ndots:2", "run", "--rm", "--dns", "192.0.2.53", "--dns-search", "shop.example", "--dns-option", "ndots:2",
		"toolbox", "cat", "/etc/resolv.conf")
	contains(t, "/etc/resolv.conf", d.do("run", "--rm", "--dns-search", "shop.example", "toolbox", "cat", "/etc/resolv.conf"), "svc.cluster.local", "shop.example")
	file := filepath.Join(t.TempDir(), "cid")
	d.do("run", "-d", "--name", "told", "--cidfile", file, "toolbox")
	if name, err := os.ReadFile(file); err != nil || string(name) != "told" {
		t.Errorf("%q, %v", name, err)
	}
	d.fails(125, []string{"run", "-d", "--name", "twice", "--cidfile", file, "toolbox"}, file, "is there already")
	d.nothing("twice")
}

func runHealth(t *testing.T, d dock) {
	d.do("run", "-d", "--name", "checked", "--health-cmd", "test -f /well", "--health-interval", "1s", "--health-retries", "1", "toolbox")
	state := func(want string) {
		t.Helper()
		eventually(t, 30*time.Second, "it is "+want, func() error {
			if list := d.do("ps"); !strings.Contains(list, "("+want+")") {
				return fmt.Errorf("%s", list)
			}
			return nil
		})
	}
	state("unhealthy")
	d.in("checked", "touch /well")
	state("healthy")
	if n := d.status("checked").RestartCount; n != 0 {
		t.Errorf("it was started again %d times", n)
	}
}

// runStop: how a container wants to be stopped.
func runStop(t *testing.T, d dock) {
	loop := "echo ready; while true; do sleep 0.1; done"
	d.do("run", "-d", "--name", "by-signal", "--stop-signal", "USR1", "toolbox", "sh", "-c", "trap 'exit 7' USR1; trap '' TERM; "+loop)
	d.do("run", "-d", "--name", "in-time", "--stop-timeout", "1", "toolbox", "sh", "-c", "trap '' TERM; "+loop)
	for _, name := range []string{"by-signal", "in-time"} {
		d.says(name, "ready")
	}
	d.do("stop", "-t", "600", "by-signal")
	d.prints("7", "wait", "by-signal")
	d.do("stop", "in-time")
	d.prints("137", "wait", "in-time")
	if grace := getPod(t, d.ns, "in-time").Spec.TerminationGracePeriodSeconds; grace == nil || *grace != 1 {
		t.Errorf("it may take %v", grace)
	}
}

func runFlags(t *testing.T, d dock) {
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("# these\nFROM_FILE=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.prints("1 a b yes", "run", "--rm", "-e", "FLAG=a b", "--env-file", file, "toolbox", "sh", "-c", "echo $FROM_FILE $FLAG $FROM_IMAGE")
	d.prints("/tmp box 12 34", "run", "--rm", "-w", "/tmp", "-h", "box", "-u", "12:34", "toolbox", "sh", "-c", "echo $(pwd) $(hostname) $(id -u) $(id -g)")
	d.prints("by entrypoint", "run", "--rm", "--entrypoint", "/bin/echo", "toolbox", "by", "entrypoint")
	d.prints("read-only", "run", "--rm", "--read-only", "toolbox", "sh", "-c", "touch /x 2>/dev/null || echo read-only")
	d.prints("CapEff:\t0000000000000000", "run", "--rm", "--cap-drop", "ALL", "toolbox", "grep", "CapEff", "/proc/self/status")
	d.prints("CapEff:\t0000000000002000", "run", "--rm", "--cap-drop", "ALL", "--cap-add", "NET_RAW", "toolbox", "grep", "CapEff", "/proc/self/status")
	d.do("run", "-d", "--name", "labelled", "-l", "colour=blue", "toolbox")
	d.prints("pod/labelled", "get", "pods", "-l", "colour=blue", "-o", "name")
}

func runVolumes(t *testing.T, d dock) {
	folder := "/var/tmp/" + d.ns
	d.do("run", "--rm", "--node", "host-1", "-v", folder+":/data", "toolbox", "sh", "-c", "echo kept > /data/file")
	if got := hostExec(t, "host-1", "cat", folder+"/file"); got != "kept\n" {
		t.Errorf("on the host: %q", got)
	}
	d.prints("kept, cannot write", "run", "--rm", "--node", "host-1", "-v", folder+":/data:ro", "toolbox", "sh", "-c",
		"echo $(cat /data/file), $(touch /data/x 2>/dev/null || echo cannot write)")
	// A named volume keeps those that use it together, also when none is left of those
	// that have used it.
	var started sync.WaitGroup
	for i := range 4 {
		started.Go(func() {
			r := d.try("run", "-d", "--name", fmt.Sprint("user-", i), "-v", "store:/data", "toolbox", "sh", "-c", fmt.Sprintf("echo named > /data/%d; exec sleep 1d", i))
			if r.code != 0 {
				t.Errorf("user %d of the volume: %+v", i, r)
			}
		})
	}
	started.Wait()
	host := getPod(t, d.ns, "user-0").Spec.NodeName
	eventually(t, 20*time.Second, "all have written to the same folder", func() error {
		files, err := inPod(t, d.ns, "user-0", "cat /data/*")
		if err == nil && files != "named\nnamed\nnamed\nnamed" {
			err = errOutput(files)
		}
		return err
	})
	d.do("rm", "-f", "user-0", "user-1", "user-2", "user-3")
	for range 3 {
		d.prints("named", "run", "--rm", "-v", "store:/data:ro", "toolbox", "cat", "/data/0")
	}
	other := "host-1"
	if host == other {
		other = "host-2"
	}
	d.fails(125, []string{"run", "-v", "store:/data", "--node", other, "toolbox"}, "volume store lies on host "+host)
	d.do("run", "--rm", "--node", other, "-v", "chosen:/data", "toolbox", "sh", "-c", "echo chosen > /data/file")
	d.prints("chosen", "run", "--rm", "-v", "chosen:/data", "toolbox", "cat", "/data/file")
	hostExec(t, "host-1", "rm", "-r", folder)
	for _, host := range []string{host, other} {
		hostExec(t, host, "rm", "-r", "/var/lib/lighter/named-volumes/"+d.ns)
	}
}

// runMounts: file systems in memory and folders of its own, which both stay until
// the container is removed.
func runMounts(t *testing.T, d dock) {
	show := "for m in /memory /dev/shm /more; do df -k $m | tail -n 1 | awk '{print $1, $2, $6}'; done"
	d.prints("tmpfs 1024 /memory\ntmpfs 2048 /dev/shm\ntmpfs 3072 /more", "run", "--rm", "--tmpfs", "/memory:size=1m", "--shm-size", "2m",
		"--mount", "type=tmpfs,target=/more,tmpfs-size=3m", "toolbox", "sh", "-c", show)
	d.do("run", "-d", "--name", "own", "--read-only", "-v", "/data", "toolbox")
	d.in("own", "echo kept > /data/file")
	d.do("restart", "-t", "0", "own")
	if got := d.in("own", "cat /data/file"); got != "kept" {
		t.Errorf("in a folder of its own: %q", got)
	}
}

func runLimits(t *testing.T, d dock) {
	d.fails(137, []string{"run", "--name", "greedy", "-m", "16m", "--cpus", "0.5", "toolbox", "tail", "/dev/zero"})
	if end := d.status("greedy").State.Terminated; end == nil || end.Reason != "OOMKilled" {
		t.Errorf("it ended as %+v", end)
	}
	d.prints("64 128", "run", "--rm", "--ulimit", "nofile=64:128", "toolbox", "sh", "-c", "echo $(ulimit -Sn) $(ulimit -Hn)")
	d.prints("77", "run", "--rm", "--sysctl", "net.core.somaxconn=77", "toolbox", "cat", "/proc/sys/net/core/somaxconn")
	d.prints("NoNewPrivs:\t1", "run", "--rm", "--security-opt", "no-new-privileges", "toolbox", "grep", "NoNewPrivs", "/proc/self/status")
	if cpu := getPod(t, d.ns, "greedy").Spec.Containers[0].Resources.Limits.Cpu(); cpu.MilliValue() != 500 {
		t.Errorf("its limit of processors is %s", cpu)
	}
}

// runRefused: what cannot run says why, and leaves nothing.
func runRefused(t *testing.T, d dock) {
	for _, test := range []struct {
		name  string
		code  int
		flags []string
		want  string
	}{
		{"nocommand", 127, []string{"toolbox", "no-such-command"}, "no-such-command"},
		{"noexec", 126, []string{"toolbox", "/etc/passwd"}, ""},
		{"noimage", 125, []string{"--pull", "never", "nobody/knows:it", "true"}, "ErrImageNeverPull"},
		{"noroom", 125, []string{"-m", "900g", "toolbox"}, "Insufficient memory"},
		{"nohost", 125, []string{"--node", "host-9", "toolbox"}, "no host host-9"},
		{"noplatform", 125, []string{"--platform", "linux/s390x", "toolbox"}, "no host can run it"},
		{"noinit", 125, []string{"--init", "toolbox"}, "--init is not supported"},
		{"nodevice", 125, []string{"--device", "/dev/null", "-P", "toolbox"}, "--publish-all is not supported: say which ports: -p PORT"},
	} {
		for _, detached := range []string{"-d=true", "-d=false"} {
			d.fails(test.code, append([]string{"run", detached, "--name", test.name}, test.flags...), test.want)
			d.nothing(test.name)
		}
	}
}

func runPolicies(t *testing.T, d dock) {
	d.do("run", "-d", "--name", "fails", "--restart", "on-failure:1", "toolbox", "sh", "-c", "echo again; exit 4")
	until(t, d.ns, "fails", 30*time.Second, "has used its retry", func(pod *corev1.Pod) bool {
		s := pod.Status.ContainerStatuses
		return len(s) == 1 && s[0].RestartCount == 1 && s[0].State.Terminated != nil
	})
	d.prints("again\nagain", "logs", "fails")
	d.do("run", "-d", "--name", "always", "--restart", "always", "toolbox", "sh", "-c", "test -f /once && exec sleep 1d; touch /once")
	until(t, d.ns, "always", 30*time.Second, "runs again", func(pod *corev1.Pod) bool {
		s := pod.Status.ContainerStatuses
		return len(s) == 1 && s[0].RestartCount == 1 && s[0].State.Running != nil
	})
	d.do("stop", "-t", "0", "always")
	if end := d.status("always").State.Terminated; end == nil || end.Reason != "Stopped" {
		t.Errorf("stopped by hand, it is %+v", d.status("always").State)
	}
}
