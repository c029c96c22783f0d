//go:build cgo && unix && !core

package zpipes

/*
#cgo pkg-config: libzmq
#cgo noescape receive
#cgo nocallback receive
#cgo noescape take
#cgo nocallback take

#include <string.h>
#include <zmq.h>

// A frame is one that was received.
typedef struct {
	zmq_msg_t msg;
	int more;  // another one of its message follows
	int known; // it came over the connection of that name
	int open;  // it is yet to be closed
} frame;

// receive takes the next frame, and copies it if there is so much room; then it is also
// closed, unless something may be asked about it. It returns how many bytes there are, or
// what is wrong, less than 0.
static int receive(void *socket, frame *f, void *to, size_t room, const char *of, size_t length, int asked) {
	zmq_msg_init(&f->msg);
	int n = zmq_msg_recv(&f->msg, socket, ZMQ_DONTWAIT);
	if (n < 0) {
		n = -zmq_errno();
		zmq_msg_close(&f->msg);
		return n;
	}
	f->more = zmq_msg_more(&f->msg);
	f->known = 0;
	if (length > 0) {
		const char *user = zmq_msg_gets(&f->msg, "User-Id");
		f->known = user && strlen(user) == length && memcmp(user, of, length) == 0;
	}
	f->open = (size_t)n > room || (asked && !f->known);
	if ((size_t)n <= room)
		memcpy(to, zmq_msg_data(&f->msg), n);
	if (!f->open)
		zmq_msg_close(&f->msg);
	return n;
}

// take closes a frame, of which it copies the first n bytes.
static void take(frame *f, void *to, size_t n) {
	memcpy(to, zmq_msg_data(&f->msg), n);
	zmq_msg_close(&f->msg);
}
*/
import "C"

import (
	"bytes"
	"reflect"
	"syscall"
	"unsafe"

	"github.com/pebbe/zmq4"
)

// An inlet receives for a socket without new memory for each frame, as zmq4 needs it: a
// large one gets a pooled segment, and small ones have one place in turn.
type inlet struct {
	handle unsafe.Pointer // libzmq's socket
	frame  C.frame
	id     [maxString]byte // no routing id is longer
	small  [chunkOffset + copyUpTo + tailBytes]byte
}

// newInlet asks zmq4 for libzmq's socket, which it does not hand out. With one that has
// another place for it, there is no inlet.
func newInlet(z *zmq4.Socket) *inlet {
	handle := reflect.ValueOf(z).Elem().FieldByName("soc")
	if handle.Kind() != reflect.UnsafePointer {
		return nil
	}
	return &inlet{handle: handle.UnsafePointer()}
}

// next receives a frame, into to if there is room.
func (in *inlet) next(to []byte, of string, asked bool) (n int, ok bool) {
	var ask C.int
	if asked {
		ask = 1
	}
	for {
		n = int(C.receive(in.handle, &in.frame, unsafe.Pointer(&to[0]), C.size_t(len(to)),
			(*C.char)(unsafe.Pointer(unsafe.StringData(of))), C.size_t(len(of)), ask))
		if n != -int(syscall.EINTR) {
			return n, n >= 0
		}
	}
}

// recv is the socket's.
func (in *inlet) recv(s *socket) (p packet, ok bool) {
	if s.router {
		n, ok := in.next(in.id[:], "", false)
		if !ok {
			return p, false
		}
		p.id = in.id[:n]
	}
	of, asked := s.asks(p.id)
	n, ok := in.next(in.small[:], of, len(asked) > 0)
	if !ok {
		return p, false
	}
	if len(asked) > 0 && in.frame.known == 0 {
		p.about = in.about(asked)
	}
	p.frame, p.lent = in.small[:min(n, len(in.small))], true
	if n > len(in.small) {
		p.body, p.lent = bodyFor(n), false
		p.frame = p.body.buf[headRoom-chunkOffset:][:n]
	}
	if in.frame.open != 0 {
		C.take(&in.frame, unsafe.Pointer(unsafe.SliceData(p.frame)), C.size_t(n))
	}
	if s.router && in.frame.more != 0 {
		in.rest(&p, s.keeps)
	}
	return p, true
}

// bodyFor is newBody for all of a message that is there.
func bodyFor(n int) *segment {
	if n <= chunkOffset+frameSegment+tailBytes {
		return newBody(n)
	}
	return &segment{buf: make([]byte, headRoom-chunkOffset+n+tailBytes)}
}

// rest receives the other frames of a message, all of which are the packet's own.
func (in *inlet) rest(p *packet, keeps int) {
	p.frame = bytes.Clone(p.frame)
	p.body.release()
	p.body, p.lent = nil, false
	for in.frame.more != 0 {
		n, ok := in.next(in.small[:], "", false)
		if !ok {
			return
		}
		kept := len(p.more) < keeps
		var f []byte
		if kept {
			f = make([]byte, n)
			copy(f, in.small[:])
		}
		if in.frame.open != 0 {
			C.take(&in.frame, unsafe.Pointer(unsafe.SliceData(f)), C.size_t(len(f)))
		}
		if kept {
			p.more = append(p.more, f)
		}
	}
}

// about says of the frame's connection what is asked, as far as libzmq knows it.
func (in *inlet) about(asked []string) map[string]string {
	told := make(map[string]string)
	for _, what := range asked {
		name := append([]byte(what), 0)
		if value := C.zmq_msg_gets(&in.frame.msg, (*C.char)(unsafe.Pointer(&name[0]))); value != nil {
			told[what] = C.GoString(value)
		}
	}
	return told
}
