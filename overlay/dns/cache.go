package dns

import (
	"container/list"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
)

const (
	cacheEntries = 4096
	// Bounds of how long an upstream's answer is kept, in seconds. Ours is the second
	// cache in the row, so it is modest.
	maxKeep         = 300
	maxKeepNegative = 30
)

// question is the key of a cached answer.
type question struct {
	name   string // lower case
	qtype  uint16
	qclass uint16
	secure bool // with DNSSEC records
}

// answers is a bounded cache of upstream answers; the least recently used goes first.
type answers struct {
	now func() time.Time

	mu    sync.Mutex
	order *list.List // of *entry, most recently used first
	byKey map[question]*list.Element
}

type entry struct {
	key     question
	msg     *mdns.Msg
	stored  time.Time
	expires time.Time
}

func newAnswers() *answers {
	return &answers{now: time.Now, order: list.New(), byKey: map[question]*list.Element{}}
}

// get returns a copy of the answer, its TTLs counted down; nil if there is none.
func (a *answers) get(key question) *mdns.Msg {
	a.mu.Lock()
	defer a.mu.Unlock()
	element, ok := a.byKey[key]
	if !ok {
		return nil
	}
	e, ok := element.Value.(*entry)
	now := a.now()
	if !ok || !now.Before(e.expires) {
		a.order.Remove(element)
		delete(a.byKey, key)
		return nil
	}
	a.order.MoveToFront(element)
	msg := e.msg.Copy()
	age := uint32(now.Sub(e.stored) / time.Second)
	eachRecord(msg, func(h *mdns.RR_Header) { h.Ttl -= min(h.Ttl, age) })
	return msg
}

// put keeps a copy of msg for as long as it allows.
func (a *answers) put(key question, msg *mdns.Msg) {
	keep := keepFor(msg)
	if keep == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	e := &entry{key: key, msg: msg.Copy(), stored: now, expires: now.Add(time.Duration(keep) * time.Second)}
	if element, ok := a.byKey[key]; ok {
		element.Value = e
		a.order.MoveToFront(element)
		return
	}
	a.byKey[key] = a.order.PushFront(e)
	if a.order.Len() <= cacheEntries {
		return
	}
	if oldest, ok := a.order.Remove(a.order.Back()).(*entry); ok {
		delete(a.byKey, oldest.key)
	}
}

// keepFor is how many seconds an answer may be reused.
func keepFor(msg *mdns.Msg) uint32 {
	if msg.Truncated || msg.Rcode != mdns.RcodeSuccess && msg.Rcode != mdns.RcodeNameError {
		return 0
	}
	if len(msg.Answer) == 0 {
		for _, rr := range msg.Ns {
			if soa, ok := rr.(*mdns.SOA); ok {
				return min(soa.Hdr.Ttl, soa.Minttl, maxKeepNegative)
			}
		}
		return 0 // RFC 2308: without SOA not to be cached
	}
	keep := uint32(maxKeep)
	eachRecord(msg, func(h *mdns.RR_Header) { keep = min(keep, h.Ttl) })
	return keep
}

func eachRecord(msg *mdns.Msg, visit func(*mdns.RR_Header)) {
	for _, section := range [][]mdns.RR{msg.Answer, msg.Ns, msg.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype != mdns.TypeOPT { // its TTL field means something else
				visit(rr.Header())
			}
		}
	}
}
