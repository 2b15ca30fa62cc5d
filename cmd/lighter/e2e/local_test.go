package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// traces are what a cluster could leave on the machine, each list sorted.
type traces struct {
	mounts, links, routes, tables, cgroups, files []string
}

// tracesOf looks for what belongs to a cluster, by its name and its subnet. What
// has neither (nft tables, interfaces of the machine) is listed as a whole.
func tracesOf(t *testing.T, name, subnet string) traces {
	t.Helper()
	var found traces
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, "/"+name+"/") || strings.Contains(line, "/"+name+" ") {
			found.mounts = append(found.mounts, line)
		}
	}
	for _, line := range strings.Split(machine(t, "ip", "-o", "-4", "addr"), "\n") {
		if subnet != "" && strings.Contains(line, subnet) {
			found.links = append(found.links, line)
		}
	}
	for _, line := range strings.Split(machine(t, "ip", "route"), "\n") {
		if subnet != "" && strings.Contains(line, subnet) {
			found.routes = append(found.routes, line)
		}
	}
	for _, line := range strings.Split(machine(t, "nft", "list", "tables"), "\n") {
		if strings.Contains(line, "lighter") {
			found.tables = append(found.tables, line)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/lighter-local/" + name, "/sys/fs/cgroup/*/lighter-local/" + name, "/sys/fs/cgroup/*/lighter", "/sys/fs/cgroup/lighter"} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found.cgroups = append(found.cgroups, matches...)
	}
	for _, pattern := range []string{"/var/lib/lighter-local/" + name, "/run/lighter-local/" + name + "*", "/var/lib/lighter", "/run/lighter", "/etc/lighter", "/var/log/pods"} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found.files = append(found.files, matches...)
	}
	return found
}

func machine(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// processes are all that are in a cluster's cgroups: pid, and when it started.
func processes(t *testing.T, name string) map[string]string {
	t.Helper()
	all := map[string]string{}
	roots, err := filepath.Glob("/sys/fs/cgroup/*/lighter-local/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range append(roots, "/sys/fs/cgroup/lighter-local/"+name) {
		_ = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.Name() == "cgroup.procs" {
				content, _ := os.ReadFile(path)
				for _, pid := range strings.Fields(string(content)) {
					all[pid] = startOf(pid)
				}
			}
			return nil
		})
	}
	return all
}

// startOf tells a process from a later one with the same pid; "" if it is gone.
func startOf(pid string) string {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19] // proc_pid_stat(5): starttime
}

// TestSecondCluster lives beside the shared one, with the same addresses inside,
// and "down" leaves nothing of it, though one of its hosts is off and pods run.
func TestSecondCluster(t *testing.T) {
	t.Parallel()
	needCluster(t)
	name := clusterName + "2"
	second := func(args ...string) (string, error) {
		return output(append([]string{"local", "--name", name}, args...)...)
	}
	if out, err := second("down"); err != nil { // of a run that was killed
		t.Fatalf("%v\n%s", err, out)
	}
	before := tracesOf(t, name, "")
	t.Cleanup(func() { _, _ = second("down") })
	if out, err := second("up", "--hosts", "2"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	path, err := second("kubeconfig", "--path")
	if err != nil {
		t.Fatal(err)
	}
	config := strings.TrimSpace(path)
	content, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(config); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the admin's kubeconfig has mode %v, %v", info.Mode(), err)
	}
	subnet := regexp.MustCompile(`10\.89\.\d+\.`).FindString(string(content))
	k := tool{"lighter", shared.binary}
	on := func(args ...string) []string { return append([]string{"--kubeconfig", config}, args...) }

	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../../manifests/guestbook")); err != nil {
		t.Fatal(err)
	}
	// The same port as a guestbook of the shared cluster.
	r := k.try(t, "", append([]string{"apply", "--timeout", "180s", "-f", dir}, "--kubeconfig", config)...)
	address := regexp.MustCompile(`http://[0-9.]+:30080`).FindString(r.out)
	if r.code != 0 || !strings.HasPrefix(address, "http://"+subnet) {
		t.Fatalf("apply: %+v", r)
	}
	eventually(t, 20*time.Second, address+" answers", func() error {
		page, err := get(address)
		if err == nil && !strings.Contains(page, "<h1>Guestbook</h1>") {
			err = errOutput(page)
		}
		return err
	})
	nodesReady(t, 20*time.Second, everyHost...)
	if out := k.run(t, on("get", "nodes", "-o", "name")...); strings.Contains(out, "host-3") {
		t.Errorf("the second cluster has nodes of the first:\n%s", out)
	}
	if out := k.run(t, "local", "ls"); !strings.Contains(out, name+" ") || !strings.Contains(out, clusterName+" ") {
		t.Errorf("local ls does not show both clusters:\n%s", out)
	}
	if out, err := second("kill", "host-2"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	running := processes(t, name)
	if len(running) < 3 {
		t.Fatalf("only %d processes run", len(running))
	}
	during := tracesOf(t, name, subnet)
	if len(during.mounts) == 0 || len(during.links) == 0 || len(during.cgroups) == 0 || len(during.files) == 0 {
		t.Fatalf("the search for traces finds nothing while the cluster runs: %+v", during)
	}
	if out, err := second("down"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for pid, start := range running {
		if now := startOf(pid); now != "" && now == start {
			command, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			t.Errorf("process %s runs on: %q", pid, command)
		}
	}
	after := tracesOf(t, name, subnet)
	for what, lists := range map[string][2][]string{
		"mounts": {before.mounts, after.mounts}, "links": {nil, after.links}, "routes": {nil, after.routes},
		"nft tables": {before.tables, after.tables}, "cgroups": {before.cgroups, after.cgroups}, "files": {before.files, after.files},
	} {
		if !slices.Equal(lists[0], lists[1]) {
			t.Errorf("%s before: %v, after down: %v", what, lists[0], lists[1])
		}
	}
	if out, err := second("down"); err != nil {
		t.Errorf("down of what is gone: %v\n%s", err, out)
	}
	nodesReady(t, 20*time.Second, everyHost...)
}
