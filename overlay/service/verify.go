package service

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watch reports who else writes to our table. The kernel numbers the transactions
// of a network namespace (its generation) and announces each with what it touched;
// one that touched our table, with a number that is not ours, is tampering.
type watch struct {
	conn    *netlink.Conn // subscribed to the announcements
	ask     *netlink.Conn // for asking the current generation
	touched chan uint32   // generations that touched our table; 0: some were missed
}

func newWatch() (*watch, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket: %w", err)
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to nftables changes: %w", err), conn.Close())
	}
	// Best effort: a large transaction announces every element. An overflow is
	// noticed and answered with a full synchronisation.
	_ = conn.SetReadBuffer(4 << 20)
	ask, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netfilter socket: %w", err), conn.Close())
	}
	return &watch{conn: conn, ask: ask, touched: make(chan uint32, 64)}, nil
}

func (w *watch) close() error { return errors.Join(w.conn.Close(), w.ask.Close()) }

// generation is the number of the namespace's latest transaction.
func (w *watch) generation() (uint32, error) {
	header := netlink.Header{
		Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN,
		Flags: netlink.Request,
	}
	answers, err := w.ask.Execute(netlink.Message{Header: header, Data: make([]byte, 4)})
	if err != nil {
		return 0, fmt.Errorf("ask for the nftables generation: %w", err)
	}
	for _, msg := range answers {
		if id, ok := generationOf(msg); ok {
			return id, nil
		}
	}
	return 0, errors.New("ask for the nftables generation: no answer")
}

// run reads announcements until the socket is closed.
func (w *watch) run(ctx context.Context) {
	ours := false
	for {
		messages, err := w.conn.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			ours = false
			if !w.report(ctx, 0) {
				return
			}
			continue
		case err != nil:
			return // closed
		}
		for _, msg := range messages {
			if id, ok := generationOf(msg); ok {
				if ours && !w.report(ctx, id) {
					return
				}
				ours = false
				continue
			}
			ours = ours || tableOf(msg) == TableName
		}
	}
}

func (w *watch) report(ctx context.Context, id uint32) bool {
	select {
	case w.touched <- id:
		return true
	case <-ctx.Done():
		return false
	}
}

// generationOf reads a NEWGEN message.
func generationOf(msg netlink.Message) (uint32, bool) {
	if msg.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
		return 0, false
	}
	var id uint32
	ok := false
	eachAttribute(msg, func(a *netlink.AttributeDecoder) {
		if a.Type() == unix.NFTA_GEN_ID {
			id, ok = a.Uint32(), true
		}
	})
	return id, ok
}

// tableOf is the name of the table that an announcement is about: in all of them
// the table's name is the attribute numbered 1 (NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, …).
func tableOf(msg netlink.Message) string {
	name := ""
	eachAttribute(msg, func(a *netlink.AttributeDecoder) {
		if a.Type() == unix.NFTA_TABLE_NAME {
			name = a.String()
		}
	})
	return name
}

func eachAttribute(msg netlink.Message, visit func(*netlink.AttributeDecoder)) {
	const nfgenmsg = 4 // the header between netlink's and the attributes
	if len(msg.Data) < nfgenmsg {
		return
	}
	decoder, err := netlink.NewAttributeDecoder(msg.Data[nfgenmsg:])
	if err != nil {
		return
	}
	decoder.ByteOrder = binary.BigEndian
	for decoder.Next() {
		visit(decoder)
	}
}
