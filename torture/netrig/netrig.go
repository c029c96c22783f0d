//go:build linux

// Package netrig is a network of hosts inside this machine, for trials. A host is a network
// namespace with an address of its own, in which programs are started; the wire between two
// hosts is this process, which delays, loses, doubles and slows down what it passes on, or
// cuts it off, in each direction by itself.
//
// It needs root. The namespaces have no names: they are gone with this process and those that
// were started in them, however these end.
package netrig

import (
	"bytes"
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Net is some hosts, and a lane from each to each.
type Net struct {
	hosts  []*Host
	lanes  [][]*Lane
	grep   atomic.Pointer[[]byte]
	found  atomic.Int64
	closed atomic.Bool
	done   sync.WaitGroup
}

// A Host is where programs run that see nothing of the others but what the wire passes on.
type Host struct {
	Addr netip.Addr // by which others see it

	net    *Net
	number int
	router *router  // that it is behind; nil: it is not
	space  *os.File // its network namespace
	tun    *os.File

	// What is on its way to this host.
	bell   int // an eventfd
	mu     sync.Mutex
	coming arrivals
}

// Conditions are those of a lane. The zero value passes everything on at once.
type Conditions struct {
	Cut   bool          // nothing comes through
	Delay time.Duration // of each packet
	Loss  float64       // the share of packets that get lost
	Twice float64       // the share of packets that come two times
	Rate  int64         // bytes a second; 0: as fast as may be
	Queue int64         // how many bytes may wait for their turn at that rate; the rest is lost; 0: any number
}

// A Lane is the way from one host to another.
type Lane struct {
	mu     sync.Mutex
	is     Conditions
	free   time.Time // when what waits for its turn has left
	passed int64     // bytes
}

// Set changes the conditions of what is sent from now on.
func (l *Lane) Set(c Conditions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.is, l.free = c, time.Time{}
}

// Passed is how many bytes have come through.
func (l *Lane) Passed() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.passed
}

// New makes a network of n hosts. With offload they send packets of up to 64 KiB, as real ones
// with good network cards seem to; it is for fast lanes, since such a packet is lost, or waits, as a whole.
func New(n int, offload bool) (*Net, error) { return build(n, offload, nil) }

// NewHidden is New without offload, but that all hosts except for the first are behind routers; see Forward.
func NewHidden(n int, forward Forward) (*Net, error) { return build(n, false, &forward) }

func build(n int, offload bool, forward *Forward) (*Net, error) {
	if n > 250 {
		return nil, errors.New("netrig: there are addresses for 250 hosts")
	}
	w := new(Net)
	for i := range n {
		h := &Host{Addr: netip.AddrFrom4([4]byte{10, 99, 0, byte(i + 1)}), net: w, number: i, bell: -1}
		if forward != nil && i > 0 {
			h.router = &router{public: h.Addr, Forward: *forward}
		}
		w.hosts = append(w.hosts, h)
		w.lanes = append(w.lanes, make([]*Lane, n))
		for j := range n {
			w.lanes[i][j] = new(Lane)
		}
		if err := h.open(offload); err != nil {
			w.Close()
			return nil, fmt.Errorf("netrig: host %v: %w", h.Addr, err)
		}
	}
	for _, h := range w.hosts {
		w.done.Add(2)
		go h.send()
		go h.deliver()
	}
	return w, nil
}

// Host is the i-th, from 0.
func (w *Net) Host(i int) *Host { return w.hosts[i] }

// Lane is the way from host i to host j.
func (w *Net) Lane(i, j int) *Lane { return w.lanes[i][j] }

// All sets the conditions of all lanes.
func (w *Net) All(c Conditions) {
	for i := range w.lanes {
		for _, l := range w.lanes[i] {
			l.Set(c)
		}
	}
}

// Grep has packets counted that have this text in them; Found is how many there were.
func (w *Net) Grep(text []byte) { w.grep.Store(&text) }

// Found is the number of packets that had Grep's text in them.
func (w *Net) Found() int64 { return w.found.Load() }

// Close takes the network away. What still runs in it has none.
func (w *Net) Close() {
	if w.closed.Swap(true) {
		return
	}
	for _, h := range w.hosts {
		if h.tun != nil {
			h.tun.Close()
		}
		h.ring()
	}
	w.done.Wait()
	for _, h := range w.hosts {
		if h.space != nil {
			h.space.Close()
		}
		if h.bell >= 0 {
			unix.Close(h.bell)
		}
	}
}

// Start starts a program on this host.
func (h *Host) Start(cmd *exec.Cmd) error { return h.Do(cmd.Start) }

// Do calls f on a thread that is on this host. What f opens stays there; goroutines that it
// starts are not.
func (h *Host) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with this goroutine
		err := unix.Setns(int(h.space.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// open makes the namespace and its device.
func (h *Host) open(offload bool) error {
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return err
	}
	h.bell = bell
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // as in Do
		err := os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWNET))
		if err == nil {
			h.space, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		}
		if err == nil {
			err = h.plug(offload)
		}
		done <- err
	}()
	return <-done
}

const (
	device = "wire"
	// headerBytes are in front of each packet: struct virtio_net_hdr.
	headerBytes = 10
	// packetBytes is the most that a packet has.
	packetBytes = headerBytes + 64<<10
)

// plug makes the device, in the namespace of the thread.
func (h *Host) plug(offload bool) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("open /dev/net/tun", err)
	}
	req, _ := unix.NewIfreq(device)
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("TUNSETIFF", err)
	}
	h.tun = os.NewFile(uintptr(fd), device) // in Go's poller
	if offload {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4); err != nil {
			return os.NewSyscallError("TUNSETOFFLOAD", err)
		}
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	set := func(name string, what uint, value func(*unix.Ifreq)) {
		if err == nil {
			req, _ := unix.NewIfreq(name)
			value(req)
			err = os.NewSyscallError(name, unix.IoctlIfreq(s, what, req))
		}
	}
	addr, mask := h.Addr, []byte{255, 255, 255, 0}
	if h.router != nil {
		addr, mask = inside, []byte{255, 0, 0, 0} // in which the public ones are, too
	}
	up := func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING) }
	set("lo", unix.SIOCSIFFLAGS, up)
	set(device, unix.SIOCSIFADDR, func(r *unix.Ifreq) { r.SetInet4Addr(addr.AsSlice()) })
	set(device, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) { r.SetInet4Addr(mask) })
	set(device, unix.SIOCSIFMTU, func(r *unix.Ifreq) { r.SetUint32(1500) })
	set(device, unix.SIOCSIFTXQLEN, func(r *unix.Ifreq) { r.SetUint32(10000) })
	set(device, unix.SIOCSIFFLAGS, up)
	return err
}

var packets = sync.Pool{New: func() any { return new([packetBytes]byte) }}

// send puts what this host sends on its way.
func (h *Host) send() {
	defer h.net.done.Done()
	for {
		b := packets.Get().(*[packetBytes]byte)
		n, err := h.tun.Read(b[:])
		if err != nil {
			return
		}
		if to := h.net.receiver(b[:n]); to != nil && h.router.out(b[:n]) && to.router.in(b[:n]) {
			h.net.pass(h, to, b, n)
		} else {
			packets.Put(b)
		}
	}
}

// receiver is the host that a packet is for; nil: none.
func (w *Net) receiver(b []byte) *Host {
	const ipv4Bytes, toAt = 20, 16
	if len(b) < headerBytes+ipv4Bytes || b[headerBytes]>>4 != 4 {
		return nil
	}
	to := netip.AddrFrom4([4]byte(b[headerBytes+toAt:]))
	if i := int(to.As4()[3]) - 1; i >= 0 && i < len(w.hosts) && w.hosts[i].Addr == to {
		return w.hosts[i]
	}
	return nil
}

// pass decides what becomes of a packet.
func (w *Net) pass(from, to *Host, b *[packetBytes]byte, n int) {
	if text := w.grep.Load(); text != nil && bytes.Contains(b[:n], *text) {
		w.found.Add(1)
	}
	l := w.lanes[from.number][to.number]
	due, times := l.enter(int64(n-headerBytes), time.Now())
	for k := range times {
		if k > 0 {
			c := packets.Get().(*[packetBytes]byte)
			copy(c[:], b[:n])
			b = c
		}
		to.expect(arrival{due: due, packet: b, n: n, lane: l})
	}
	if times == 0 {
		packets.Put(b)
	}
}

// enter says when a packet of so many bytes is at the other end, and how often.
func (l *Lane) enter(bytes int64, now time.Time) (due time.Time, times int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.is.Cut || rand.Float64() < l.is.Loss {
		return due, 0
	}
	due = now
	if rate := l.is.Rate; rate > 0 {
		if l.free.Before(now) {
			l.free = now
		}
		if l.is.Queue > 0 && int64(l.free.Sub(now).Seconds()*float64(rate))+bytes > l.is.Queue {
			return due, 0
		}
		l.free = l.free.Add(time.Duration(float64(bytes) / float64(rate) * float64(time.Second)))
		due = l.free
	}
	if rand.Float64() < l.is.Twice {
		return due.Add(l.is.Delay), 2
	}
	return due.Add(l.is.Delay), 1
}

// An arrival is a packet on its way.
type arrival struct {
	due    time.Time
	number uint64 // of those that are due at the same time, which is first
	packet *[packetBytes]byte
	n      int
	lane   *Lane
}

type arrivals struct {
	list []arrival
	last uint64
}

func (a *arrivals) Len() int { return len(a.list) }
func (a *arrivals) Less(i, j int) bool {
	x, y := &a.list[i], &a.list[j]
	return x.due.Before(y.due) || x.due.Equal(y.due) && x.number < y.number
}
func (a *arrivals) Swap(i, j int) { a.list[i], a.list[j] = a.list[j], a.list[i] }
func (a *arrivals) Push(x any)    { a.list = append(a.list, x.(arrival)) }
func (a *arrivals) Pop() any {
	x := a.list[len(a.list)-1]
	a.list = a.list[:len(a.list)-1]
	return x
}

// expect has a packet delivered when it is due.
func (h *Host) expect(a arrival) {
	h.mu.Lock()
	h.coming.last++
	a.number = h.coming.last
	heap.Push(&h.coming, a)
	first := h.coming.list[0].number == a.number
	h.mu.Unlock()
	if first {
		h.ring()
	}
}

func (h *Host) ring() {
	if h.bell >= 0 {
		unix.Write(h.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// deliver hands over to this host what is due. It has a thread of its own, which sleeps to the
// microsecond.
func (h *Host) deliver() {
	defer h.net.done.Done()
	runtime.LockOSThread() // as in Do
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
	var count [8]byte
	for !h.net.closed.Load() {
		h.mu.Lock()
		now := time.Now()
		var a arrival
		var wait *unix.Timespec
		if h.coming.Len() > 0 {
			if d := h.coming.list[0].due.Sub(now); d > 0 {
				t := unix.NsecToTimespec(int64(d))
				wait = &t
			} else {
				a = heap.Pop(&h.coming).(arrival)
			}
		}
		h.mu.Unlock()
		if a.packet != nil {
			a.lane.arrive(h.tun, a)
			continue
		}
		unix.Ppoll([]unix.PollFd{{Fd: int32(h.bell), Events: unix.POLLIN}}, wait, nil)
		unix.Read(h.bell, count[:])
	}
}

func (l *Lane) arrive(tun *os.File, a arrival) {
	if _, err := tun.Write(a.packet[:a.n]); err == nil {
		l.mu.Lock()
		l.passed += int64(a.n - headerBytes)
		l.mu.Unlock()
	}
	packets.Put(a.packet)
}
