//go:build cgo

package zpipes

// accept_linux.c is linked into the program in place of libc's accept4.

import "C"
