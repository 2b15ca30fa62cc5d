package cgroup

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseMounts(t *testing.T) {
	const (
		unified = `30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
`
		legacy = `31 30 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs ro,mode=755
32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /sys/fs/cgroup/memory rw,nosuid - cgroup memory rw,memory
34 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd,release_agent=/x
`
		extra = `35 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`
		elsewhere = `36 31 0:32 / /mnt/cgroup rw - cgroup cgroup rw,pids
37 31 0:32 / /sys/fs/cgroupless rw - cgroup cgroup rw,pids
cut off
`
	)
	v1 := map[string]string{
		"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
		"memory": "/sys/fs/cgroup/memory", "systemd": "/sys/fs/cgroup/systemd", "xattr": "/sys/fs/cgroup/systemd",
	}
	for name, tt := range map[string]struct {
		mountinfo string
		v1        map[string]string
		v2        string
	}{
		"v2 alone":               {unified, map[string]string{}, "/sys/fs/cgroup"},
		"v1 alone":               {legacy, v1, ""},
		"both":                   {legacy + extra, v1, "/sys/fs/cgroup/unified"},
		"mounts of other places": {legacy + elsewhere, v1, ""},
		"nothing":                {"", map[string]string{}, ""},
	} {
		gotV1, gotV2 := parseMounts(tt.mountinfo)
		if !maps.Equal(gotV1, tt.v1) || gotV2 != tt.v2 {
			t.Errorf("%s: got %v and %q, want %v and %q", name, gotV1, gotV2, tt.v1, tt.v2)
		}
	}
}

func TestWeightOf(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 39, 262144: 10000, 1 << 40: 10000} {
		if got := weightOf(shares); got != want {
			t.Errorf("%d shares: weight %d, want %d", shares, got, want)
		}
	}
}

// tree makes a Tree whose files are ordinary ones, with the given names, in the
// cgroup /pod.
func tree(t *testing.T, mode Mode, files ...string) (*Tree, func(file string) string) {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "pod")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name, content, _ := strings.Cut(file, "=")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := &Tree{mode: mode, root: "/", v2: top}
	if mode != Unified {
		out.v2, out.v1 = "", map[string]string{"cpu": top, "cpuacct": top, "memory": top, "pids": top}
	}
	return out, func(file string) string {
		raw, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
}

func TestLimit(t *testing.T) {
	all := Limits{CPUShares: 512, CPUQuota: 50_000, CPUPeriod: 100_000, Memory: 64 << 20, PIDs: 100}
	for name, tt := range map[string]struct {
		mode   Mode
		limits Limits
		want   map[string]string
	}{
		"v2": {Unified, all, map[string]string{"cpu.weight": "20", "cpu.max": "50000 100000", "memory.max": "67108864", "pids.max": "100"}},
		"v1": {Legacy, all, map[string]string{
			"cpu.shares": "512", "cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000", "memory.limit_in_bytes": "67108864", "pids.max": "100",
		}},
		"v2, no bound on the CPU": {Unified, Limits{CPUQuota: -1}, map[string]string{"cpu.max": "max"}},
		"v1, no bound on the CPU": {Legacy, Limits{CPUQuota: -1}, map[string]string{"cpu.cfs_quota_us": "-1"}},
		"v2, nothing":             {Unified, Limits{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var files []string
			for file := range tt.want {
				files = append(files, file)
			}
			cgroup, read := tree(t, tt.mode, files...)
			if err := cgroup.Limit("/pod", tt.limits); err != nil {
				t.Fatal(err)
			}
			for file, want := range tt.want {
				if got := read(file); got != want {
					t.Errorf("%s: %q, want %q", file, got, want)
				}
			}
		})
	}
	cgroup, _ := tree(t, Legacy)
	delete(cgroup.v1, "pids")
	if err := cgroup.Limit("/pod", Limits{PIDs: 1}); err == nil || !strings.Contains(err.Error(), "no pids controller") {
		t.Errorf("without the controller: %v", err)
	}
}

func TestStats(t *testing.T) {
	want := Stats{CPU: 1500 * time.Microsecond, Memory: 1000, WorkingSet: 600, RSS: 300, PIDs: 7}
	v2, _ := tree(t, Unified, "cpu.stat=usage_usec 1500\nuser_usec 1\n", "memory.current=1000\n",
		"memory.stat=anon 300\nfile 5\ninactive_file 400\n", "pids.current=7\n", "memory.events=oom 3\noom_kill 2\n")
	v1, _ := tree(t, Legacy, "cpuacct.usage=1500000\n", "memory.usage_in_bytes=1000\n",
		"memory.stat=rss 1\ntotal_rss 300\ntotal_inactive_file 400\n", "pids.current=7\n", "memory.oom_control=oom_kill_disable 0\noom_kill 2\n")
	for name, cgroup := range map[string]*Tree{"v2": v2, "v1": v1} {
		if got, err := cgroup.Stats("/pod"); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
		if got := cgroup.OOMKills("/pod"); got != 2 {
			t.Errorf("%s: %d processes killed for memory, want 2", name, got)
		}
		if _, err := cgroup.Stats("/none"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a cgroup that is not there: %v", name, err)
		}
	}
}

func TestDying(t *testing.T) {
	if Dying(os.Getpid()) {
		t.Error("this process is not dying")
	}
	for text, want := range map[string]bool{
		"Name:\tsh\nState:\tS (sleeping)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n": false,
		"Name:\tsh\nState:\tR (running)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n":  true,
		"Name:\tsh\nState:\tR (running)\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n":  true,
		"Name:\tsh\nState:\tZ (zombie)\n": true,
	} {
		if got := killed(text); got != want {
			t.Errorf("%q: killed %v, want %v", text, got, want)
		}
	}
	for text, want := range map[string]bool{
		"12 (sh) S 1 12 12 0 -1 4194304 100 0 0":      false, // another flag
		"12 (a) b (c) R 1 12 12 0 -1 4195588 100 0 0": true,  // PF_EXITING among others
		"12 (cut off) R 1":                            false,
		"":                                            false,
	} {
		if got := exiting(text); got != want {
			t.Errorf("%q: exiting %v, want %v", text, got, want)
		}
	}
}
