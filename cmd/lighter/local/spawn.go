package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/continuity"

	"golang.org/x/sys/unix"
)

// binDir, inside a host, holds the lighter binary that its daemon runs.
const binDir = "/run/bin"

// start runs argv inside a host, in the leaf of its cgroup. prepare sets the
// streams and attributes. executable, if not nil, becomes the host's lighter.
func (c *Cluster) start(host, leaf string, argv []string, executable *os.File, prepare func(*exec.Cmd)) (*exec.Cmd, error) {
	var cmd *exec.Cmd
	err := inThread(func() error {
		unified, err := joinCgroup(filepath.Join(c.CgroupPath(host), leaf))
		if err != nil {
			return err
		}
		defer unified.Close()
		if err := c.enter(host); err != nil {
			return err
		}
		if executable != nil {
			if err := attachExecutable(executable); err != nil {
				return err
			}
		}
		path := binDir + ":" + os.Getenv("PATH")
		if cmd, err = commandIn(path, argv); err != nil {
			return err
		}
		if unified != nil {
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(unified.Fd())
		}
		prepare(cmd)
		return cmd.Start()
	})
	if err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", argv[0], host, err)
	}
	return cmd, nil
}

// commandIn looks argv[0] up in path, as seen from the calling thread.
func commandIn(path string, argv []string) (*exec.Cmd, error) {
	program := argv[0]
	if !strings.Contains(program, "/") {
		for _, dir := range filepath.SplitList(path) {
			candidate := filepath.Join(dir, program)
			if unix.Access(candidate, unix.X_OK) == nil {
				program = candidate
				break
			}
		}
		if program == argv[0] {
			return nil, fmt.Errorf("%s: %w", program, exec.ErrNotFound)
		}
	}
	return &exec.Cmd{Path: program, Args: argv, Env: append(hostEnv(os.Environ()), "PATH="+path), SysProcAttr: &syscall.SysProcAttr{}}, nil
}

// hostEnv is the machine's environment without its PATH and what leads to other
// clusters or supervisors.
func hostEnv(environ []string) []string {
	return slices.DeleteFunc(environ, func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return name == "PATH" || name == "KUBECONFIG" || name == "NOTIFY_SOCKET"
	})
}

// startDaemon starts argv in the background on a booted host: in a session of
// its own, with its output appended to the host's log file.
func (c *Cluster) startDaemon(host string, argv []string) (*exec.Cmd, error) {
	// Written first: whatever runs later can be told from its children.
	if err := continuity.AtomicWriteFile(c.argvFile(host), []byte(cmdline(argv)), 0o644); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(c.LogFile(host), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	executable, err := cloneExecutable()
	if err != nil {
		return nil, err
	}
	defer executable.Close()
	return c.start(host, "daemon", argv, executable, func(cmd *exec.Cmd) {
		cmd.Stdout, cmd.Stderr, cmd.SysProcAttr.Setsid = log, log, true
	})
}

func (c *Cluster) argvFile(host string) string {
	return filepath.Join(c.HostDir(host), "daemon.argv")
}

// cmdline is argv as /proc/<pid>/cmdline shows it.
func cmdline(argv []string) string { return strings.Join(argv, "\x00") + "\x00" }

// daemonPIDs finds the host's daemon. Its cgroup also holds what it started,
// such as the supervisors of containers: those have another command line or,
// being plain children, no session of their own.
func (c *Cluster) daemonPIDs(host string) (map[int]bool, error) {
	want, err := os.ReadFile(c.argvFile(host))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	pids, err := cgroupPIDs(filepath.Join(c.CgroupPath(host), "daemon"))
	if err != nil {
		return nil, err
	}
	for pid := range pids {
		have, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		session, err := unix.Getsid(pid)
		if err != nil || session != pid || string(have) != string(want) {
			delete(pids, pid)
		}
	}
	return pids, nil
}

// cloneExecutable makes a detached mount of our own binary (open_tree(2)): the
// one kind of mount that may cross into another mount namespace.
func cloneExecutable() (*os.File, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("clone the mount of %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// attachExecutable shows our own binary, as it is now, at a path that exists on
// every host, wherever on the machine it lies.
func attachExecutable(executable *os.File) error {
	target := filepath.Join(binDir, "lighter")
	if err := os.MkdirAll(binDir, 0o755); err != nil {
		return err
	}
	for unix.Unmount(target, unix.MNT_DETACH) == nil {
	}
	file, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o755)
	if err != nil {
		return err
	}
	file.Close()
	if err := unix.MoveMount(int(executable.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// Exec runs argv on a host, waits for it, and returns an *exec.ExitError when
// argv fails.
func (c *Cluster) Exec(host string, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if _, err := c.Host(host); err != nil {
		return err
	}
	cmd, err := c.start(host, "exec", argv, nil, func(cmd *exec.Cmd) {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	})
	if err != nil {
		return err
	}
	return cmd.Wait()
}
