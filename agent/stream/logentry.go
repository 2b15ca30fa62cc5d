package stream

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// parseEntry splits an entry of the CRI log format. text keeps the newline.
func parseEntry(line []byte) (at, stream string, tag byte, text []byte, ok bool) {
	when, rest, ok1 := bytes.Cut(line, []byte{' '})
	name, rest, ok2 := bytes.Cut(rest, []byte{' '})
	mark, text, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok1 || !ok2 || !ok3 || len(mark) == 0 || (mark[0] != 'P' && mark[0] != 'F') {
		return "", "", 0, nil, false
	}
	return string(when), string(name), mark[0], text, true
}

// tailBlock is how much tailOffset reads at once, from the end backwards.
const tailBlock = 64 << 10

// tailOffset finds where the last want lines begin, and how many there are if
// the file holds fewer. A line is what ends with an entry tagged F; an unfinished
// one at the end counts too.
func tailOffset(file *os.File, want int64) (offset, found int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return 0, 0, err
	}
	end := info.Size()
	if want == 0 {
		return end, 0, nil
	}
	// held is the head of an entry whose beginning is in the block before; begin
	// is where the earliest entry that is part of the result begins.
	var held []byte
	begin := end
	first := true
	for pos := end; pos > 0; {
		size := min(tailBlock, pos)
		pos -= size
		block := make([]byte, size, size+int64(len(held)))
		if _, err := file.ReadAt(block, pos); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		block = append(block, held...)
		for {
			cut := bytes.LastIndexByte(bytes.TrimSuffix(block, []byte("\n")), '\n')
			if cut < 0 && pos > 0 {
				held = block
				break
			}
			entry := block[cut+1:]
			_, _, tag, _, ok := parseEntry(entry)
			// An F ends a line, so it begins a new one when read backwards.
			if len(entry) > 0 && (first || ok && tag == 'F') {
				if found == want {
					return begin, found, nil
				}
				found++
				first = false
			}
			begin = pos + int64(cut) + 1
			if cut < 0 {
				break
			}
			block = block[:cut+1]
		}
	}
	return begin, found, nil
}
