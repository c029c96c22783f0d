package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/rpc"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A network is a transport that has connections: listen is called once, by the reader.
type network interface {
	listen() (net.Listener, error)
	connect() (net.Conn, error)
}

func (p *pipes) listen() (net.Listener, error) {
	c, err := p.client()
	if err != nil {
		return nil, err
	}
	return c.Listen(context.Background(), p.Prefix+"service")
}

func (p *pipes) connect() (net.Conn, error) {
	c, err := p.client()
	if err != nil {
		return nil, err
	}
	return c.DialContext(context.Background(), "zpipes", p.Prefix+"service")
}

func (u unixSockets) listen() (net.Listener, error) { return net.Listen("unix", u.path(0)) }
func (u unixSockets) connect() (net.Conn, error)    { return net.Dial("unix", u.path(0)) }

// tcpSockets are connections over the loopback interface.
type tcpSockets struct {
	transport // none: there are no streams
	Task
}

func (s *tcpSockets) serve() (address string, err error) {
	s.Address, err = freePort()
	return s.Address, err
}

func (s *tcpSockets) listen() (net.Listener, error) { return net.Listen("tcp", s.Address) }
func (s *tcpSockets) connect() (net.Conn, error)    { return net.Dial("tcp", s.Address) }

// freePort is a loopback address that nobody listens at, with a port below those that the system gives to who asks for
// any.
func freePort() (string, error) {
	for {
		address := fmt.Sprint("127.0.0.1:", 20_000+rand.IntN(10_000))
		l, err := net.Listen("tcp", address)
		switch {
		case err == nil:
			return address, l.Close()
		case !errors.Is(err, syscall.EADDRINUSE):
			return "", err
		}
	}
}

// serveWith is a job's listen: all that comes is dealt with like that.
func serveWith(serve func(net.Listener)) func(*Part) error {
	return func(p *Part) error {
		l, err := p.transport.(network).listen()
		if err == nil {
			go serve(l)
		}
		return err
	}
}

// callWith is a job's dial: begin returns what sends b and returns what comes back.
func callWith(begin func(network) (func(b []byte) ([]byte, error), error)) func(*Part) error {
	return func(p *Part) error {
		exchange, err := begin(p.transport.(network))
		if err != nil {
			return err
		}
		b, n := newRecord(p.task.Size), uint64(0)
		p.repeat(func() (time.Duration, error) {
			n++
			binary.LittleEndian.PutUint64(b, n)
			start := time.Now()
			back, err := exchange(b)
			took := time.Since(start)
			if err == nil && !bytes.Equal(back, b) {
				err = errWrong
			}
			return took, err
		})
		return nil
	}
}

// Bytes there and back.
func serveEcho(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			for b := make([]byte, readBuffer); ; {
				n, err := c.Read(b)
				if err == nil {
					_, err = c.Write(b[:n])
				}
				if err != nil {
					return
				}
			}
		}()
	}
}

func callEcho(n network) (func([]byte) ([]byte, error), error) {
	c, err := n.connect()
	if err != nil {
		return nil, err
	}
	var back []byte
	return func(b []byte) ([]byte, error) {
		if _, err := c.Write(b); err != nil {
			return nil, err
		}
		back = append(back[:0], b...)
		_, err := io.ReadFull(c, back)
		return back, err
	}, nil
}

// Echo is called by net/rpc.
type Echo struct{}

// Back returns what it is given.
func (Echo) Back(b []byte, back *[]byte) error {
	*back = b
	return nil
}

func serveRPC(l net.Listener) {
	s := rpc.NewServer()
	if err := s.Register(Echo{}); err != nil {
		panic(err)
	}
	s.Accept(l)
}

func callRPC(n network) (func([]byte) ([]byte, error), error) {
	c, err := n.connect()
	if err != nil {
		return nil, err
	}
	client := rpc.NewClient(c)
	return func(b []byte) (back []byte, err error) {
		err = client.Call("Echo.Back", b, &back)
		return back, err
	}, nil
}

func serveHTTP(l net.Listener) {
	http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Write(b)
	}))
}

func callHTTP(n network) (func([]byte) ([]byte, error), error) {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return n.connect() },
	}}
	return func(b []byte) ([]byte, error) {
		r, err := client.Post("http://service/", "application/octet-stream", bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		defer r.Body.Close()
		return io.ReadAll(r.Body)
	}, nil
}

// grpcEcho is a service of gRPC, without generated code.
var grpcEcho = grpc.ServiceDesc{
	ServiceName: "Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Back",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			b := new(wrapperspb.BytesValue)
			return b, decode(b)
		},
	}},
}

func serveGRPC(l net.Listener) {
	s := grpc.NewServer()
	s.RegisterService(&grpcEcho, nil)
	s.Serve(l)
}

func callGRPC(n network) (func([]byte) ([]byte, error), error) {
	c, err := grpc.NewClient("passthrough:service",
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return n.connect() }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return func(b []byte) ([]byte, error) {
		back := new(wrapperspb.BytesValue)
		err := c.Invoke(context.Background(), "/Echo/Back", wrapperspb.Bytes(b), back)
		return back.Value, err
	}, nil
}

// dialConnections makes a connection, time and again, when the one before is over at both
// sides. Where the system keeps them for a while, they are reset.
func dialConnections(p *Part) error {
	n := p.transport.(network)
	p.repeat(func() (time.Duration, error) {
		start := time.Now()
		c, err := n.connect()
		took := time.Since(start)
		if err != nil {
			return 0, err
		}
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			return 0, err
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			return 0, err
		}
		if t, ok := c.(*net.TCPConn); ok {
			t.SetLinger(0)
		}
		return took, c.Close()
	})
	return nil
}

// exchanges are the jobs that are about connections, by what they are called.
var exchanges = []struct{ name, job string }{
	{"echo", "echo"}, {"net/rpc", "rpc"}, {"HTTP", "http"}, {"gRPC", "grpc"}, {"dial", "connect"},
}

// over is a contender, or the peer of one.
func over(transport, exchange string) string { return fmt.Sprintf("%s, %s", transport, exchange) }
