//go:build unix

package main

import (
	"errors"
	"os"
	"testing"
)

// Who is told that nobody takes the input any more goes on only if there is none: else it is the one who reads it
// that finds out, and says that something is missing.
func TestStandardInputThatNobodyTakes(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer func(was *os.File) { os.Stdin = was }(os.Stdin)
	os.Stdin = r
	s := new(standardSide)
	if err := s.CloseRead(); err != errUnread {
		t.Errorf("before it has been looked whether there is some: %v", err)
	}
	read := make(chan int)
	go func() {
		for b := make([]byte, 10); ; {
			n, _ := s.Read(b)
			read <- n
			if n == 0 {
				return
			}
		}
	}()
	eventually(t, "it waits for some", func() bool { return errors.Is(s.CloseRead(), errors.ErrUnsupported) })
	w.WriteString("some")
	eventually(t, "it is read", func() bool { return s.CloseRead() == errUnread })
	<-read
	eventually(t, "it waits for more", func() bool { return errors.Is(s.CloseRead(), errors.ErrUnsupported) })
	w.Close()
	if n := <-read; n != 0 {
		t.Errorf("%d bytes more", n)
	}
	if err := s.CloseRead(); err != errUnread {
		t.Errorf("behind the end: %v", err)
	}
}
