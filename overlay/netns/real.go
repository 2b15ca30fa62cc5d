package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Real is a namespace of the running kernel.
type Real struct {
	file *os.File
	h    *netlink.Handle
	path string
}

var _ Kernel = (*Real)(nil)

// Open opens the namespace at path (a bind mount or /proc/<pid>/ns/net). A path
// that is missing or that is no namespace any more is ErrNotFound.
func Open(path string) (*Real, error) {
	if err := ns.IsNSorErr(path); err != nil {
		return nil, fmt.Errorf("open namespace %s: %w (%w)", path, ErrNotFound, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open namespace %s: %w", path, wrap(err))
	}
	return fromFile(f, path)
}

// Current opens the namespace of the calling thread, which is the process's own
// in a program that never moves its threads for longer than a call.
func Current() (*Real, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return Open(fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()))
}

func fromFile(f *os.File, path string) (*Real, error) {
	h, err := netlink.NewHandleAt(vns.NsHandle(int(f.Fd())), unix.NETLINK_ROUTE)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open netlink in %s: %w", path, err)
	}
	return &Real{file: f, h: h, path: path}, nil
}

// String names the namespace for people.
func (k *Real) String() string { return k.path }

// Close gives up the sockets. The namespace stays as long as something else holds it.
func (k *Real) Close() error {
	k.h.Close()
	return k.file.Close()
}

// Do runs f on a thread inside the namespace: for sockets, sysctls and programs
// that must be born there. f must not start goroutines that need the namespace.
func (k *Real) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()))
		if err != nil {
			done <- fmt.Errorf("open own namespace: %w", err)
			return // the thread is dropped with the goroutine, as it is still locked
		}
		defer func() { _ = home.Close() }()
		if err := unix.Setns(int(k.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", k.path, err)
			return
		}
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// Watch subscribes to rtnetlink's groups. A receive buffer that overflowed is a
// change like any other: the receiver looks at everything anyway.
func (k *Real) Watch(ctx context.Context) (<-chan struct{}, error) {
	s, err := nl.SubscribeAt(vns.NsHandle(int(k.file.Fd())), vns.None(), unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_NEIGH)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", k.path, err)
	}
	ch := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, s.Close)
	go func() {
		defer close(ch)
		defer stop()
		for {
			_, _, err := s.Receive()
			if ctx.Err() != nil {
				return
			}
			if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
				s.Close()
				return
			}
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}()
	return ch, nil
}

// Sysctl reads a value below /proc/sys.
func (k *Real) Sysctl(key string) (string, error) {
	path, err := sysctlPath(key)
	if err != nil {
		return "", err
	}
	var value string
	err = k.Do(func() error {
		b, err := os.ReadFile(path)
		value = strings.TrimSpace(string(b))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", key, wrap(err))
	}
	return value, nil
}

// SetSysctl writes a value below /proc/sys.
func (k *Real) SetSysctl(key, value string) error {
	path, err := sysctlPath(key)
	if err != nil {
		return err
	}
	err = k.Do(func() error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(value)
		return errors.Join(err, f.Close())
	})
	if err != nil {
		return fmt.Errorf("set sysctl %s=%s: %w", key, value, wrap(err))
	}
	return nil
}

func sysctlPath(key string) (string, error) {
	if !strings.HasPrefix(key, "net/") || filepath.Clean(key) != key {
		return "", fmt.Errorf("sysctl %q: want a clean path below net/: %w", key, ErrInvalid)
	}
	return "/proc/sys/" + key, nil
}

// wrap marks an errno with the contract's error of the same meaning.
func wrap(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return fmt.Errorf("%w (%w)", ErrNotFound, err)
	}
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w (%w)", ErrNotFound, err)
		}
		return err
	}
	switch errno {
	case unix.ENODEV, unix.ENOENT, unix.ESRCH, unix.EADDRNOTAVAIL, unix.ENXIO:
		return fmt.Errorf("%w (%w)", ErrNotFound, err)
	case unix.EEXIST:
		return fmt.Errorf("%w (%w)", ErrExists, err)
	case unix.EINVAL, unix.ERANGE, unix.EOPNOTSUPP:
		return fmt.Errorf("%w (%w)", ErrInvalid, err)
	case unix.ENETUNREACH, unix.ENETDOWN, unix.EHOSTUNREACH:
		return fmt.Errorf("%w (%w)", ErrUnreachable, err)
	}
	return err
}
