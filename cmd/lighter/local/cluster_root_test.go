package local

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// fakeDaemons runs a shell that starts a child in a session and a cgroup-less
// corner of its own, as a container's supervisor would be, and then waits.
type fakeDaemons struct{}

func (fakeDaemons) Prepare(_ context.Context, c *Cluster, host Host) (Command, error) {
	files := map[string][]byte{"/etc/lighter/role": []byte(host.Role), "/etc/lighter/settings": []byte(fmt.Sprint(c.Settings["max-pods"]))}
	return Command{Files: files, Argv: []string{"busybox", "sh", "-c", "echo daemon of $(hostname) up; busybox setsid busybox sleep 3611 & busybox sleep 3612; true"}}, nil
}

func (fakeDaemons) NeedsServer(c *Cluster, host Host) bool { return host.Name != c.Servers()[0].Name }

func (fakeDaemons) ServerReady(context.Context, *Cluster, <-chan struct{}) error { return nil }

func (fakeDaemons) AllReady(context.Context, *Cluster, Report) error { return nil }

func needRootTest(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network and mount namespaces")
	}
	for _, program := range []string{"busybox", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: hack/install-deps.sh installs it", program)
		}
	}
}

// testSpec names a cluster that no other test run uses.
func testSpec(t *testing.T, suffix string, hosts int) Spec {
	return Spec{Name: fmt.Sprintf("t%d%s", os.Getpid(), suffix), Dir: filepath.Join(t.TempDir(), "cluster"), Hosts: hosts}
}

func mustUp(t *testing.T, spec Spec) *Cluster {
	t.Helper()
	cluster, err := Up(t.Context(), spec, fakeDaemons{}, t.Logf)
	if cluster != nil {
		t.Cleanup(func() {
			if err := cluster.Down(); err != nil && !strings.Contains(err.Error(), ErrNoCluster.Error()) {
				t.Errorf("clean up: %v", err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return cluster
}

func mustExec(t *testing.T, c *Cluster, host string, argv ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := c.Exec(host, argv, nil, &out, &out); err != nil {
		t.Fatalf("exec on %s: %v: %v: %s", host, argv, err, out.String())
	}
	return strings.TrimSpace(out.String())
}

func reaches(c *Cluster, host, ip string) bool {
	return c.Exec(host, []string{"busybox", "ping", "-c", "1", "-W", "1", ip}, nil, nil, nil) == nil
}

// comesToReach is reaches for what has to hold, be it after a while on a busy machine.
func comesToReach(c *Cluster, host, ip string) bool {
	return eventually(func() bool { return reaches(c, host, ip) })
}

// eventually tells whether something comes true.
func eventually(holds func() bool) bool {
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// awaitProcesses waits until a host's fake daemon has started both of its children.
func awaitProcesses(t *testing.T, c *Cluster, host string) {
	t.Helper()
	if !eventually(func() bool { pids, err := c.pids(host); return err == nil && len(pids) >= 3 }) {
		pids, err := c.pids(host)
		t.Fatalf("processes of %s: %v, %v", host, pids, err)
	}
}

func TestClusterLifeRoot(t *testing.T) {
	needRootTest(t)
	spec := testSpec(t, "a", 3)
	before := inventory(t, spec)

	cluster := mustUp(t, spec)
	if got := mustExec(t, cluster, "host-2", "busybox", "hostname"); got != "host-2" {
		t.Errorf("hostname on host-2 is %q", got)
	}
	if got := mustExec(t, cluster, "host-1", "busybox", "cat", "/etc/lighter/role"); got != string(RoleServer) {
		t.Errorf("role of host-1 is %q", got)
	}
	h1, h2, h3 := cluster.Hosts[0].IP.String(), cluster.Hosts[1].IP.String(), cluster.Hosts[2].IP.String()
	if !comesToReach(cluster, "host-1", h3) || !comesToReach(cluster, "host-3", cluster.Gateway().String()) {
		t.Fatal("hosts do not reach one another or the machine")
	}
	testFromMachine(t, cluster, h2)

	t.Run("own files", func(t *testing.T) {
		mustExec(t, cluster, "host-1", "busybox", "touch", "/var/lib/lighter/mine", "/run/mine", "/etc/lighter/mine")
		for _, path := range []string{"/var/lib/lighter/mine", "/run/mine", "/etc/lighter/mine"} {
			if _, err := os.Stat(path); err == nil {
				t.Errorf("the machine sees %s of host-1", path)
			}
			if cluster.Exec("host-2", []string{"busybox", "test", "-e", path}, nil, nil, nil) == nil {
				t.Errorf("host-2 sees %s of host-1", path)
			}
		}
	})
	t.Run("cut", func(t *testing.T) {
		if err := cluster.CutLink("host-1", "host-2"); err != nil {
			t.Fatal(err)
		}
		if reaches(cluster, "host-1", h2) || reaches(cluster, "host-2", h1) {
			t.Error("host-1 and host-2 still reach one another")
		}
		if !comesToReach(cluster, "host-1", h3) {
			t.Error("host-3 was cut off too")
		}
		if err := cluster.CutLink("host-3", ""); err != nil {
			t.Fatal(err)
		}
		if reaches(cluster, "host-1", h3) || reaches(cluster, "host-3", cluster.Gateway().String()) {
			t.Error("host-3 still reaches something")
		}
		if err := cluster.Heal(); err != nil {
			t.Fatal(err)
		}
		if !comesToReach(cluster, "host-1", h2) || !comesToReach(cluster, "host-1", h3) {
			t.Error("not healed")
		}
	})
	t.Run("own thread", func(t *testing.T) { testOwnThread(t, cluster) })
	t.Run("kill and start", func(t *testing.T) { testKill(t, cluster, h2) })
	t.Run("up again", func(t *testing.T) {
		pids, _ := cluster.daemonPIDs("host-1")
		again, err := Up(t.Context(), Spec{Name: spec.Name, Dir: spec.Dir}, fakeDaemons{}, t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Hosts) != 3 {
			t.Errorf("%d hosts after a second up", len(again.Hosts))
		}
		if now, _ := again.daemonPIDs("host-1"); !maps.Equal(pids, now) {
			t.Errorf("the daemon was restarted: %v, now %v", pids, now)
		}
	})
	t.Run("settings", func(t *testing.T) { testSettings(t, cluster, spec) })

	if err := cluster.Down(); err != nil {
		t.Fatal(err)
	}
	sameInventory(t, before, spec)
}

// testSettings: a daemon that starts gets the cluster's settings as they are by then,
// also on a host that has run before; one that runs is left alone.
func testSettings(t *testing.T, cluster *Cluster, spec Spec) {
	want := func(host, settings string) {
		t.Helper()
		if got := mustExec(t, cluster, host, "busybox", "cat", "/etc/lighter/settings"); got != settings {
			t.Errorf("%s has the settings %q, want %q", host, got, settings)
		}
	}
	want("host-2", "<nil>")
	if err := cluster.KillDaemon("host-2"); err != nil {
		t.Fatal(err)
	}
	if _, err := Up(t.Context(), Spec{Name: spec.Name, Dir: spec.Dir, Settings: map[string]any{"max-pods": 7}}, fakeDaemons{}, t.Logf); err != nil {
		t.Fatal(err)
	}
	want("host-1", "<nil>")
	want("host-2", "7")
	if err := cluster.KillDaemon("host-3"); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Start(t.Context(), "host-3", fakeDaemons{}, t.Logf); err != nil {
		t.Fatal(err)
	}
	want("host-3", "7")
}

// testFromMachine opens a TCP connection from the machine to a host.
func testFromMachine(t *testing.T, cluster *Cluster, ip string) {
	t.Helper()
	var listener net.Listener
	err := inNet(cluster.pin("host-2", "net"), func() (err error) {
		listener, err = net.Listen("tcp4", ip+":0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.DialTimeout("tcp4", listener.Addr().String(), 30*time.Second)
	if err != nil {
		t.Fatalf("the machine does not reach host-2: %v", err)
	}
	conn.Close()
}

// testOwnThread: a power loss while a thread of ours is in the host, to start
// something there, must not count us among its processes.
func testOwnThread(t *testing.T, cluster *Cluster) {
	err := inThread(func() error {
		unified, err := joinCgroup(filepath.Join(cluster.CgroupPath("host-2"), "daemon"))
		if err != nil {
			return err
		}
		defer unified.Close()
		pids, err := cluster.pids("host-2")
		if pids[os.Getpid()] {
			t.Error("we count as a process of host-2")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func testKill(t *testing.T, cluster *Cluster, ip string) {
	mustExec(t, cluster, "host-2", "busybox", "touch", "/var/lib/lighter/stays", "/run/goes")
	awaitProcesses(t, cluster, "host-2")
	all, err := cluster.pids("host-2")
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Kill("host-2"); err != nil {
		t.Fatal(err)
	}
	for pid := range all {
		if unix.Kill(pid, 0) == nil && namespaceOf(pid, "net") != 0 {
			t.Errorf("process %d outlived the power loss", pid)
		}
	}
	if reaches(cluster, "host-1", ip) {
		t.Error("host-2 answers without power")
	}
	if err := cluster.Start(t.Context(), "host-2", fakeDaemons{}, t.Logf); err != nil {
		t.Fatal(err)
	}
	mustExec(t, cluster, "host-2", "busybox", "test", "-e", "/var/lib/lighter/stays")
	mustExec(t, cluster, "host-2", "busybox", "test", "!", "-e", "/run/goes")
	if !comesToReach(cluster, "host-1", ip) {
		t.Error("host-2 does not answer after its start")
	}
	awaitProcesses(t, cluster, "host-2")

	mustExec(t, cluster, "host-2", "busybox", "touch", "/run/goes")
	daemon, _ := cluster.daemonPIDs("host-2")
	if len(daemon) != 1 {
		t.Fatalf("daemon of host-2: %v", daemon)
	}
	if err := cluster.KillDaemon("host-2"); err != nil {
		t.Fatal(err)
	}
	if rest, _ := cluster.pids("host-2"); len(rest) == 0 {
		t.Error("killing the daemon killed its containers")
	}
	if err := cluster.Start(t.Context(), "host-2", fakeDaemons{}, t.Logf); err != nil {
		t.Fatal(err)
	}
	mustExec(t, cluster, "host-2", "busybox", "test", "-e", "/run/goes")
}

func TestTwoClustersRoot(t *testing.T) {
	needRootTest(t)
	one, two := testSpec(t, "b", 2), testSpec(t, "c", 1)
	before := inventory(t, one, two)
	a, b := mustUp(t, one), mustUp(t, two)
	if a.Subnet == b.Subnet {
		t.Fatalf("both clusters have %s", a.Subnet)
	}
	if reaches(a, "host-1", b.Hosts[0].IP.String()) {
		t.Error("a host reaches another cluster's host")
	}
	if err := a.Down(); err != nil {
		t.Fatal(err)
	}
	if !comesToReach(b, "host-1", b.Gateway().String()) {
		t.Error("the second cluster suffers from the first one's end")
	}
	if err := b.Down(); err != nil {
		t.Fatal(err)
	}
	sameInventory(t, before, one, two)
}

// TestKilledUpRoot kills "up" at several moments: a second up completes the
// cluster, and down leaves nothing.
func TestKilledUpRoot(t *testing.T) {
	needRootTest(t)
	spec := testSpec(t, "k", 3)
	before := inventory(t, spec)
	for _, ms := range []int{10, 25, 45, 80, 140} {
		up := exec.Command(os.Args[0], "-test.run=^TestHelperUp$")
		up.Env = append(os.Environ(), "LIGHTER_TEST_UP="+spec.Name+":"+spec.Dir)
		if err := up.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(ms)*time.Millisecond, func() { _ = up.Process.Kill() })
		_ = up.Wait()
		if cluster, err := Load(spec.Name, spec.Dir); err == nil && ms > 100 {
			if err := cluster.Down(); err != nil {
				t.Fatalf("down after an up killed at %d ms: %v", ms, err)
			}
			sameInventory(t, before, spec)
		}
	}
	cluster := mustUp(t, spec)
	for _, host := range cluster.Hosts {
		if !comesToReach(cluster, host.Name, cluster.Gateway().String()) {
			t.Errorf("%s does not work", host.Name)
		}
	}
	if err := cluster.Down(); err != nil {
		t.Fatal(err)
	}
	sameInventory(t, before, spec)
}

// TestHelperUp is the process that TestKilledUpRoot kills.
func TestHelperUp(t *testing.T) {
	name, dir, ok := strings.Cut(os.Getenv("LIGHTER_TEST_UP"), ":")
	if !ok {
		t.Skip("not a test: a process for TestKilledUpRoot")
	}
	_, err := Up(t.Context(), Spec{Name: name, Dir: dir, Hosts: 3}, fakeDaemons{}, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
}

// inventory lists what a cluster could leave behind: links, mounts, cgroups,
// processes, files. Only what bears the clusters' names counts, because other
// tests run meanwhile.
func inventory(t *testing.T, specs ...Spec) []string {
	t.Helper()
	var found []string
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	trees, err := mountedHierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range specs {
		c := &Cluster{Name: spec.Name, Dir: spec.Dir}
		for _, link := range links {
			if link.Attrs().Name == c.uplink() {
				found = append(found, "link "+link.Attrs().Name)
			}
		}
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, c.pinDir()) || strings.Contains(line, c.Dir) {
				found = append(found, "mount "+line)
			}
		}
		for _, tree := range trees {
			dir := filepath.Join(tree.mount, cgroupRoot, c.Name)
			if _, err := os.Stat(dir); err == nil {
				found = append(found, "cgroup "+dir)
			}
		}
		for _, root := range []string{c.pinDir(), indexLink(c.Name), c.Dir} {
			_ = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
				if err == nil {
					found = append(found, "file "+path)
				}
				return nil
			})
		}
		found = append(found, processesOf(t, c)...)
	}
	return found
}

// processesOf finds processes whose root, wherever their namespaces, mentions
// the cluster's directory in its mounts.
func processesOf(t *testing.T, c *Cluster) []string {
	t.Helper()
	var found []string
	infos, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		content, _ := os.ReadFile(info)
		if bytes.Contains(content, []byte(c.Dir)) {
			found = append(found, "process "+filepath.Dir(info))
		}
	}
	return found
}

// sameInventory wants nothing that stays. Other tests make mount namespaces meanwhile,
// which have copies of all mounts for a moment.
func sameInventory(t *testing.T, before []string, specs ...Spec) {
	t.Helper()
	var left []string
	if !eventually(func() bool {
		left = slices.DeleteFunc(inventory(t, specs...), func(item string) bool { return slices.Contains(before, item) })
		return len(left) == 0
	}) {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}
