package service

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// serve answers in a pod on TCP and UDP: every line or packet gets "<pod> <client>".
func (l *lab) serve(pod string, port uint16) {
	l.t.Helper()
	l.pods[pod].do(func() error {
		listener, err := net.Listen("tcp", addrPort(pod, port))
		if err != nil {
			return err
		}
		packets, err := net.ListenPacket("udp", addrPort(pod, port))
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { _, _ = listener.Close(), packets.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go answerLines(conn, pod)
			}
		}()
		go func() {
			buf := make([]byte, 1500)
			for {
				_, from, err := packets.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = packets.WriteTo([]byte(pod+" "+from.String()), from)
			}
		}()
		return nil
	})
}

func answerLines(conn net.Conn, pod string) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if _, err := fmt.Fprintf(conn, "%s %s\n", pod, conn.RemoteAddr()); err != nil {
			return
		}
	}
}

// session is a TCP connection over which one can ask again and again.
type session struct {
	conn  net.Conn
	read  *bufio.Reader
	limit time.Duration // for an answer
}

const (
	// patience is how long what has to work may take on a busy machine.
	patience = 30 * time.Second
	// brief is for what is not expected to work, or is tried again.
	brief = 2 * time.Second
)

// dial connects from a namespace; each step may take as long as given.
func (n *netns) dial(to string, limit time.Duration) (*session, error) {
	var s *session
	err := <-n.start(func() error {
		conn, err := net.DialTimeout("tcp", to, limit)
		if err != nil {
			return err
		}
		s = &session{conn: conn, read: bufio.NewReader(conn), limit: limit}
		return nil
	})
	return s, err
}

// ask returns which pod answers, and the client address that it sees.
func (s *session) ask() (pod, client string, err error) {
	if err := s.conn.SetDeadline(time.Now().Add(s.limit)); err != nil {
		return "", "", err
	}
	if _, err := io.WriteString(s.conn, "?\n"); err != nil {
		return "", "", err
	}
	line, err := s.read.ReadString('\n')
	if err != nil {
		return "", "", err
	}
	pod, client, ok := strings.Cut(strings.TrimSpace(line), " ")
	if !ok {
		return "", "", errors.New("strange answer " + line)
	}
	host, _, err := net.SplitHostPort(client)
	return pod, host, err
}

// get asks over a new connection that may well fail.
func (n *netns) get(to string) (pod, client string, err error) {
	return n.getWithin(to, brief)
}

func (n *netns) getWithin(to string, limit time.Duration) (pod, client string, err error) {
	s, err := n.dial(to, limit)
	if err != nil {
		return "", "", err
	}
	defer s.conn.Close()
	return s.ask()
}

// mustGet is get for connections that have to work.
func (n *netns) mustGet(to string) (pod, client string) {
	n.t.Helper()
	pod, client, err := n.getWithin(to, patience)
	if err != nil {
		n.t.Fatalf("connect to %s: %v", to, err)
	}
	return pod, client
}
