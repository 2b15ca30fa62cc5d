package netnstest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"lighter.dev/lighter/overlay/netns"
)

// Pinger sends ICMP echo requests (RFC 792) from a namespace that must not be
// fragmented. It stands in for ping(8), which minimal machines lack.
type Pinger struct {
	fd  int
	id  uint16
	seq uint16
	dst *unix.SockaddrInet4
}

// NewPinger opens the socket. src may be the zero Addr.
func NewPinger(ns *netns.Real, src, dst netip.Addr) (*Pinger, error) {
	p := &Pinger{id: uint16(os.Getpid()), dst: &unix.SockaddrInet4{Addr: dst.As4()}} //nolint:gosec // any 16 bits do
	err := ns.Do(func() (err error) {
		p.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open ICMP socket: %w", err)
	}
	if src.IsValid() {
		err = unix.Bind(p.fd, &unix.SockaddrInet4{Addr: src.As4()})
	}
	if err == nil {
		err = unix.SetsockoptInt(p.fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("set up ICMP socket: %w", err)
	}
	return p, nil
}

// Close gives the socket back.
func (p *Pinger) Close() { _ = unix.Close(p.fd) }

// Ping sends one request whose IP packet is size bytes long and waits for the reply.
func (p *Pinger) Ping(size int, wait time.Duration) error {
	p.seq++
	b := make([]byte, max(size-20, 8))
	b[0] = 8 // echo request
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], p.seq)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	deadline := time.Now().Add(wait)
	if err := unix.Sendto(p.fd, b, 0, p.dst); err != nil {
		return fmt.Errorf("send %d bytes: %w", size, err)
	}
	in := make([]byte, 65536)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("no reply from %v within %s", p.dst.Addr, wait)
		}
		tv := unix.NsecToTimeval(left.Nanoseconds())
		if err := unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		n, _, err := unix.Recvfrom(p.fd, in, 0)
		if err != nil || n < 28 {
			continue // the deadline ends the loop
		}
		reply := in[20:n]
		if reply[0] == 0 && binary.BigEndian.Uint16(reply[4:]) == p.id && binary.BigEndian.Uint16(reply[6:]) == p.seq {
			return nil
		}
	}
}

// Ping is one request from a namespace, whose reply has to come within wait.
func Ping(ns *netns.Real, src, dst netip.Addr, size int, wait time.Duration) error {
	p, err := NewPinger(ns, src, dst)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Ping(size, wait)
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
