package node

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// hostFacts do not change while the agent runs.
type hostFacts struct {
	info    corev1.NodeSystemInfo
	cpus    int64
	memory  int64 // bytes
	storage int64 // bytes
}

func readHost(dataDir string) (hostFacts, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return hostFacts{}, fmt.Errorf("uname: %w", err)
	}
	mem, err := meminfo()
	if err != nil {
		return hostFacts{}, err
	}
	if err := os.MkdirAll(dataDir, 0o755); err != nil {
		return hostFacts{}, err
	}
	disk, err := statDisk(dataDir)
	if err != nil {
		return hostFacts{}, err
	}
	return hostFacts{
		info: corev1.NodeSystemInfo{
			MachineID: firstLine("/etc/machine-id"), SystemUUID: systemUUID(), BootID: firstLine("/proc/sys/kernel/random/boot_id"),
			KernelVersion: unix.ByteSliceToString(uts.Release[:]), OSImage: osImage("/"),
			OperatingSystem: goruntime.GOOS, Architecture: goruntime.GOARCH,
		},
		cpus: int64(goruntime.NumCPU()), memory: bounded(mem["MemTotal"]), storage: disk.total,
	}, nil
}

// bounded lowers the memory to the limit of the cgroup that the agent was put
// into, if that is smaller (a host that is itself a container).
func bounded(total int64) int64 {
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if limit, err := strconv.ParseInt(firstLine(path), 10, 64); err == nil && limit > 0 && limit < total {
			return limit
		}
	}
	return total
}

// meminfo reads /proc/meminfo; the values are bytes.
func meminfo() (map[string]int64, error) {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		out[strings.TrimSuffix(fields[0], ":")] = n << 10
	}
	if out["MemTotal"] == 0 {
		return nil, errors.New("/proc/meminfo has no MemTotal")
	}
	return out, nil
}

// disk is the state of one file system, in bytes and inodes.
type disk struct {
	total, free           int64
	inodes, inodesFree    uint64
	percentFree, inodePct float64
}

func statDisk(path string) (disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return disk{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	size := int64(st.Bsize) //nolint:unconvert // its type depends on the architecture
	d := disk{
		total: int64(st.Blocks) * size, free: int64(st.Bavail) * size,
		inodes: st.Files, inodesFree: st.Ffree, percentFree: 100, inodePct: 100,
	}
	if d.total > 0 {
		d.percentFree = 100 * float64(d.free) / float64(d.total)
	}
	if d.inodes > 0 { // some file systems have no fixed number
		d.inodePct = 100 * float64(d.inodesFree) / float64(d.inodes)
	}
	return d, nil
}

// tasks counts all tasks of the host and what the kernel allows.
func tasks() (used, limit int64) {
	fields := strings.Fields(firstLine("/proc/loadavg"))
	if len(fields) > 3 {
		_, total, _ := strings.Cut(fields[3], "/")
		used, _ = strconv.ParseInt(total, 10, 64)
	}
	limit, _ = strconv.ParseInt(firstLine("/proc/sys/kernel/pid_max"), 10, 64)
	return used, limit
}

// osImage is PRETTY_NAME of os-release(5).
func osImage(root string) string {
	raw, err := os.ReadFile(filepath.Join(root, "etc/os-release"))
	if err != nil {
		return "Linux"
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"'`)
		}
	}
	return "Linux"
}

// systemUUID is the firmware's; machines without one use the machine ID.
func systemUUID() string {
	if id := firstLine("/sys/class/dmi/id/product_uuid"); id != "" {
		return strings.ToLower(id)
	}
	return firstLine("/etc/machine-id")
}

// firstLine is "" if there is no such file.
func firstLine(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	return strings.TrimSpace(line)
}
