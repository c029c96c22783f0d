//go:build cgo && linux && !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	parts["keyed broker"] = playKeyedBroker
	parts["keyed writer"] = playKeyedWriter
}

// plainText is what must not be seen on the wire.
const plainText = "as plain as it can be; "

func playKeyedBroker(task childTask) int {
	key, err := ParseKey(task.Data)
	if err == nil {
		var b *Broker
		if b, err = (BrokerConfig{Key: key, Endpoints: []string{task.Broker}}).NewBroker("wire"); err == nil {
			defer b.Close()
			var r *Reader
			if r, err = b.Client().OpenReader(context.Background(), task.Pipe); err == nil {
				fmt.Println("ready")
				var n int64
				n, err = io.Copy(io.Discard, r)
				fmt.Println(n, err)
			}
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	io.Copy(io.Discard, os.Stdin)
	return 0
}

func playKeyedWriter(task childTask) int {
	key, err := ParseKey(task.Data)
	if err == nil {
		var c *Client
		if c, err = (ClientConfig{Key: key}).NewClient(task.Broker); err == nil {
			defer c.Close()
			var w *Writer
			if w, err = c.OpenWriter(context.Background(), task.Pipe); err == nil {
				if _, err = io.WriteString(w, strings.Repeat(plainText, task.Count)); err == nil {
					err = w.Close()
				}
			}
		}
	}
	fmt.Println("done", err)
	return 0
}

// Between two hosts, what is written and what pipes are called is not to be read on the
// wire. The hosts are network namespaces, the wire is here.
func TestKeyWire(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("there is no ip(8) to give the hosts addresses")
	}
	const count, pipe = 200_000, "a-name-that-is-nobodys-business"
	key := NewKey().Secret()
	task := childTask{Part: "keyed broker", Broker: "tcp://10.99.0.1:7900", Pipe: pipe, Data: key}
	broker, left := startHost(t, "10.99.0.1", task)
	task.Part, task.Count = "keyed writer", count
	writer, right := startHost(t, "10.99.0.2", task)
	var passed, plain, greetings atomic.Int64
	wire := func(to, from *os.File) {
		packet := make([]byte, 1<<16)
		for {
			n, err := from.Read(packet)
			if err != nil {
				return
			}
			passed.Add(int64(n))
			switch p := packet[:n]; {
			case bytes.Contains(p, []byte(plainText)), bytes.Contains(p, []byte(pipe)):
				plain.Add(1)
			case bytes.Contains(p, []byte("CURVE")):
				greetings.Add(1) // which is not encrypted: we do see
			}
			to.Write(packet[:n])
		}
	}
	go wire(left, right)
	go wire(right, left)
	broker().ready()
	if got := writer().line(); got != "done <nil>" {
		t.Errorf("the writer: %s", got)
	}
	if got, want := broker().line(), fmt.Sprint(count*len(plainText), " <nil>"); got != want {
		t.Errorf("the reader: %s, want %s", got, want)
	}
	if plain.Load() > 0 || greetings.Load() == 0 || passed.Load() < int64(count*len(plainText)) {
		t.Errorf("of %d bytes on the wire: %d packets with plain text, %d greetings", passed.Load(), plain.Load(), greetings.Load())
	}
}

// startHost returns what starts a process on a host of its own, once, and the host's end
// of the wire.
func startHost(t *testing.T, address string, task childTask) (process func() *child, end *os.File) {
	t.Helper()
	start := make(chan struct{})
	started := make(chan *child)
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread ends, and nobody else gets it
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			failed <- err
			return
		}
		var err error
		end, err = openTun()
		for _, args := range []string{"link set lo up", "addr add " + address + "/24 dev tun0", "link set tun0 up mtu 1400"} {
			if err == nil {
				var out []byte
				if out, err = exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
					err = fmt.Errorf("ip %s: %w %s", args, err, out)
				}
			}
		}
		failed <- err
		if err == nil {
			<-start
			started <- startChild(t, task)
		}
	}()
	if err := <-failed; errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		t.Skip("no network namespace with a TUN device here:", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end.Close() })
	var c *child
	return func() *child {
		if c == nil {
			close(start)
			c = <-started
		}
		return c
	}, end
}

// openTun makes a network device whose packets are read and written here.
func openTun() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var request struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [64]byte
	}
	copy(request.name[:], "tun0")
	request.flags = unix.IFF_TUN | unix.IFF_NO_PI
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&request))); e != 0 {
		unix.Close(fd)
		return nil, e
	}
	return os.NewFile(uintptr(fd), "tun"), nil
}
