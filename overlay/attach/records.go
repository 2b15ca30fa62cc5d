package attach

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// record is what a pod holds. It is written before the kernel is touched and
// removed after, so that a crash in between leaves a trace to clean up by. Like
// leases (package ipam) records need no fsync: what they describe does not
// survive a power loss either.
type record struct {
	Sandbox Sandbox
	IP      netip.Addr
}

func (r record) holder() string { return "pod " + r.Sandbox.PodNamespace + "/" + r.Sandbox.PodName }

// records are the attachments by pod UID, in memory and one file each.
type records struct {
	dir string
	mu  sync.Mutex
	all map[string]record
}

func openRecords(dir string, log *slog.Logger) (*records, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	rs := &records{dir: dir, all: map[string]record{}}
	for _, e := range entries {
		uid, isRecord := strings.CutSuffix(e.Name(), ".json")
		path := filepath.Join(dir, e.Name())
		content, err := os.ReadFile(path) //nolint:gosec // our own folder
		if err != nil {
			return nil, fmt.Errorf("open records: %w", err)
		}
		var r record
		err = json.Unmarshal(content, &r)
		if !isRecord || err != nil || r.Sandbox.PodUID != uid {
			log.Warn("drop a record that cannot be read", "file", e.Name(), "error", err)
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("drop record: %w", err)
			}
			continue
		}
		rs.all[uid] = r
	}
	return rs, nil
}

func (rs *records) path(uid string) string { return filepath.Join(rs.dir, uid+".json") }

func (rs *records) get(uid string) (record, bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r, ok := rs.all[uid]
	return r, ok
}

// put keeps the record unless another pod holds one of its ports.
func (rs *records) put(r record) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	uid := r.Sandbox.PodUID
	if err := rs.conflict(uid, r.Sandbox.Ports); err != nil {
		return err
	}
	content, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	temp := rs.path(uid) + ".new"
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := os.Rename(temp, rs.path(uid)); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	rs.all[uid] = r
	return nil
}

func (rs *records) conflict(uid string, ports []Port) error {
	for i, p := range ports {
		for _, q := range ports[:i] {
			if p.clashes(q) {
				return &PortConflictError{Port: p, Holder: "another container of the same pod"}
			}
		}
		for other, r := range rs.all {
			if other != uid && slices.ContainsFunc(r.Sandbox.Ports, p.clashes) {
				return &PortConflictError{Port: p, Holder: r.holder()}
			}
		}
	}
	return nil
}

func (rs *records) drop(uid string) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	err := os.Remove(rs.path(uid))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("drop record: %w", err)
	}
	delete(rs.all, uid)
	return nil
}

// list is sorted by UID.
func (rs *records) list() []record {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	out := make([]record, 0, len(rs.all))
	for _, uid := range slices.Sorted(maps.Keys(rs.all)) {
		out = append(out, rs.all[uid])
	}
	return out
}
