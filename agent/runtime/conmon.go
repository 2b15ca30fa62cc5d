package runtime

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// createTimeout bounds what the OCI runtime may take to create a container.
const createTimeout = 2 * time.Minute

// conmonArgs are the supervisor's arguments. --full-attach makes it put the
// attach socket into the bundle; sd-notify and journald are not used.
func (e *Engine) conmonArgs(c *container) []string {
	spec := &c.spec
	bundle := e.bundleDir(spec.ID)
	args := []string{
		"--api-version", "1",
		"--cid", spec.ID, "--cuuid", spec.ID, "--name", spec.ID,
		"--runtime", c.oci.path,
		"--runtime-arg=--root=" + e.ociRoot(),
		"--bundle", bundle,
		"--container-pidfile", filepath.Join(bundle, pidFile),
		"--conmon-pidfile", filepath.Join(bundle, conmonPIDFile),
		"--exit-dir", e.exitsDir(),
		"--persist-dir", e.stateDir(spec.ID),
		"--log-path", "k8s-file:" + spec.LogPath,
		"--log-level", "error",
		"--full-attach",
		// An fsync at each container's exit buys nothing: logs are not a database.
		"--no-sync-log",
	}
	if spec.Container.Stdin {
		args = append(args, "--stdin")
		if !spec.Container.StdinOnce {
			args = append(args, "--leave-stdin-open")
		}
	}
	if spec.Container.TTY {
		args = append(args, "--terminal")
	}
	return args
}

// startConmon runs conmon, which runs `runtime create`, and returns the PID of
// the container's first process. conmon waits on its start pipe until it is in
// its cgroup, then forks away from us and reports through its sync pipe.
func (e *Engine) startConmon(ctx context.Context, c *container) (int, error) {
	syncR, syncW, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer func() { _ = syncR.Close() }()
	startR, startW, err := os.Pipe()
	if err != nil {
		_ = syncW.Close()
		return 0, err
	}
	defer func() { _ = startW.Close() }()
	errLog, err := os.OpenFile(filepath.Join(e.bundleDir(c.id), conmonLogFile), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		_ = syncW.Close()
		_ = startR.Close()
		return 0, err
	}
	defer func() { _ = errLog.Close() }()

	cmd := exec.Command(e.cfg.Conmon, e.conmonArgs(c)...) //nolint:noctx // what conmon has begun it ends; Delete undoes it
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = errLog, errLog
	cmd.ExtraFiles = []*os.File{syncW, startR}
	cmd.Env = []string{"_OCI_SYNCPIPE=3", "_OCI_STARTPIPE=4", "PATH=" + os.Getenv("PATH"), "LANG=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	done := e.enterConmonCgroup(cmd)
	err = cmd.Start()
	done()
	_ = syncW.Close()
	_ = startR.Close()
	if err != nil {
		return 0, fmt.Errorf("start conmon: %w", err)
	}
	e.joinConmonCgroup(cmd.Process.Pid)
	_, err = startW.Write([]byte{0})
	// The first process ends as soon as it has forked the supervisor.
	waitErr := cmd.Wait()
	if err = errors.Join(err, waitErr); err != nil {
		return 0, fmt.Errorf("start conmon: %w: %s", err, tailOf(errLog))
	}
	return readSync(ctx, syncR, errLog)
}

// conmonCgroup is where supervisors live: beside the pods, so that a pod's
// memory limit never kills the process that reports its death, and out of the
// agent's own cgroup, so that stopping the agent's service does not stop them.
func (e *Engine) conmonCgroup() string { return e.cgroups.Path("conmon") }

func (e *Engine) enterConmonCgroup(cmd *exec.Cmd) (done func()) {
	dir, err := e.cgroups.OpenV2(e.conmonCgroup())
	if err != nil {
		return func() {}
	}
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	return func() { _ = dir.Close() }
}

func (e *Engine) joinConmonCgroup(pid int) {
	if dir, err := e.cgroups.OpenV2(e.conmonCgroup()); err == nil {
		_ = dir.Close()
		return // entered by clone3
	}
	if err := e.cgroups.Join(e.conmonCgroup(), pid); err != nil {
		e.log.Warn("conmon stays in the agent's cgroup", "err", err)
	}
}

// readSync reads conmon's report: {"data": <pid or -1>, "message": "…"}.
func readSync(ctx context.Context, pipe *os.File, errLog *os.File) (int, error) {
	_ = pipe.SetReadDeadline(time.Now().Add(createTimeout))
	stop := context.AfterFunc(ctx, func() { _ = pipe.SetReadDeadline(time.Now()) })
	defer stop()
	line, err := bufio.NewReader(pipe).ReadBytes('\n')
	if len(line) == 0 && err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, fmt.Errorf("conmon reported nothing: %w: %s", err, tailOf(errLog))
	}
	var report struct {
		Data    int    `json:"data"`
		PID     int    `json:"pid"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(line, &report); err != nil {
		return 0, fmt.Errorf("conmon's report %q: %w", line, err)
	}
	pid := report.Data
	if pid == 0 {
		pid = report.PID
	}
	if pid > 0 {
		return pid, nil
	}
	message := report.Message
	if message == "" {
		message = tailOf(errLog)
	}
	message = runtimeMessage(message)
	return 0, &Error{Reason: ReasonStartError, Message: message, Err: errRefused}
}

// errRefused is the cause of errors whose text comes from the OCI runtime.
var errRefused = errors.New("refused by the OCI runtime")

func tailOf(file *os.File) string {
	const limit = 2048
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	buf := make([]byte, limit)
	n, _ := file.ReadAt(buf, max(0, end-limit))
	return strings.TrimSpace(string(buf[:n]))
}

var (
	logrusError = regexp.MustCompile(`level=error msg=("(?:[^"\\]|\\.)*"|\S+)`)
	crunTime    = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}T\S+: `)
	runcPrefix  = regexp.MustCompile(`^(runc create failed: |unable to start container process: |container_linux\.go:\d+: |starting container process caused: )+`)
)

// runtimeMessage takes the runtime's own words out of its log line: runc writes
// logfmt, crun a time stamp and the text.
func runtimeMessage(text string) string {
	text = strings.TrimSpace(text)
	if found := logrusError.FindAllStringSubmatch(text, -1); len(found) > 0 {
		text = found[len(found)-1][1]
		if plain, err := strconv.Unquote(text); err == nil {
			text = plain
		}
	}
	text = crunTime.ReplaceAllString(text, "")
	return strings.TrimSpace(runcPrefix.ReplaceAllString(text, ""))
}
