package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func forwardCommand() *cli.Command {
	s := new(server)
	return &cli.Command{
		Name:      "forward",
		Usage:     "pass connections on between a name and a Unix socket or a loopback address",
		ArgsUsage: "FROM TO",
		Description: `Listens at FROM, and connects each connection that comes to TO, so that programs take part
which know nothing of zpipes. One of the two is a name, and the other is unix:PATH, a loopback
HOST:PORT, or, to connect to, tcp:HOST:PORT of any host:

  zpipes forward 127.0.0.1:8080 web          # curl http://127.0.0.1:8080/ reaches who listens at web
  zpipes forward web unix:/run/app.sock      # and the app listens at web

A name that looks like an address is given as name:NAME. Prints where it listens when it does.

Ends pass through in each direction. What tears one side tears the other; a TCP connection is
reset. A socket is for its user and root alone; a loopback address is for all users of the
machine, who then get what the user who runs this may. TERM is as for zpipes listen.`,
		Flags: s.flags(),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if cmd.NArg() != 2 {
				return usageError{"from where to where? zpipes forward " + cmd.ArgsUsage}
			}
			from, to := placeOf(cmd.Args().Get(0)), placeOf(cmd.Args().Get(1))
			if (from.network == "") == (to.network == "") {
				return usageError{"one of the two has to be a name, and the other an address: unix:PATH, or HOST:PORT with a loopback HOST"}
			}
			if _, err := checkName(from.address, "place it comes from"); err != nil {
				return err
			}
			if _, err := checkName(to.address, "place it goes to"); err != nil {
				return err
			}
			if err := cmp.Or(from.check(), to.check()); err != nil {
				return err
			}
			c, err := connect(cmd, s.timeout)
			if err != nil {
				return err
			}
			defer c.Close()
			l, err := from.listen(ctx, c)
			if err != nil {
				return causeOf(ctx, err)
			}
			if _, err := fmt.Fprintf(output{}, "%s goes to %s\n", from.shown(l), to.shown(nil)); err != nil {
				l.Close()
				return err
			}
			return s.serve(ctx, l, func(ctx context.Context, in net.Conn) error {
				a := sideOf(in)
				out, err := to.dial(ctx, c)
				if err != nil {
					a.tear(err)
					return err
				}
				return s.couple(ctx, a, sideOf(out))
			})
		},
	}
}

// A place is what forward goes between: a name, where network is "", or an address.
type place struct{ network, address string }

func placeOf(text string) place {
	if name, ok := strings.CutPrefix(text, "name:"); ok {
		return place{"", name}
	}
	if network, address, ok := strings.Cut(text, ":"); ok && (network == "unix" || network == "tcp") {
		return place{network, address}
	}
	if host, _, err := net.SplitHostPort(text); err == nil {
		if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
			return place{"tcp", text}
		}
	}
	return place{"", text}
}

func (p place) check() error {
	if p.network == "unix" {
		return checkPath(p.address)
	}
	return nil
}

func (p place) shown(l net.Listener) string {
	switch {
	case p.network == "":
		return visible(p.address)
	case p.network == "tcp" && l != nil:
		return l.Addr().String() // with the port
	case p.network == "tcp":
		return p.address
	}
	return p.network + ":" + visible(p.address)
}

func (p place) listen(ctx context.Context, c *zpipes.Client) (net.Listener, error) {
	switch p.network {
	case "":
		return c.Listen(ctx, p.address)
	case "unix":
		l, err := listenUnix(p.address, nil)
		if err != nil {
			return nil, err
		}
		return ownListener{l}, nil
	}
	addr, err := net.ResolveTCPAddr("tcp", p.address)
	if err != nil {
		return nil, err
	}
	if !addr.IP.IsLoopback() {
		return nil, usageError{fmt.Sprintf("%s is not a loopback address: other machines could connect, and nothing would be encrypted", visible(p.address))}
	}
	return net.ListenTCP("tcp", addr)
}

// dialTime is how long forward tries to reach an address.
const dialTime = 10 * time.Second

func (p place) dial(ctx context.Context, c *zpipes.Client) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	if p.network == "" {
		return c.DialContext(ctx, zpipes.Addr{}.Network(), p.address)
	}
	return new(net.Dialer).DialContext(ctx, p.network, p.address)
}

// ownListener lets in its own user and root, also while the socket's file is not yet theirs
// alone.
type ownListener struct{ net.Listener }

func (l ownListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, _, ok := unixPeer(c); ok && mayLook(uid, overflowUID(), nil) {
			return c, nil
		}
		c.Close()
	}
}

func sideOf(c net.Conn) side {
	if n, ok := c.(*zpipes.Conn); ok {
		return newPipeSide(n)
	}
	return socketSide{c.(socket)}
}

// A socket is a *net.TCPConn or *net.UnixConn.
type socket interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
}

type socketSide struct{ socket }

// tear resets a TCP connection. With a Unix socket there is no such thing.
func (s socketSide) tear(error) {
	if c, ok := s.socket.(*net.TCPConn); ok {
		c.SetLinger(0)
	}
	s.Close()
}

func (socketSide) gone() bool { return false } // only a write would tell
