package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func (s *server) flags() []cli.Flag {
	s.most, s.grace = 64, duration(10*time.Second)
	return []cli.Flag{
		&cli.GenericFlag{Name: "timeout", Value: &s.timeout, Usage: "wait for a broker for `DURATION` (else 5s)"},
		&cli.GenericFlag{Name: "max", Value: &s.most, Usage: "have `COUNT` connections at a time; others wait"},
		&cli.GenericFlag{Name: "grace", Value: &s.grace, Usage: "when it is to end, give connections `DURATION` to finish"},
		&cli.GenericFlag{Name: "idle", Value: &s.idle, Usage: "tear a connection through which nothing has passed for `DURATION` (else never)"},
	}
}

func listenCommand() *cli.Command {
	s := new(server)
	return &cli.Command{
		Name:      "listen",
		Usage:     "run a program for each connection to a name",
		ArgsUsage: "NAME -- PROGRAM [ARG...]",
		Description: `Listens at the name, and runs the program for each connection (zpipes connect), which is its
standard input and output. If the program fails, the connection is torn, and the other side
gets an error in place of the end. If the other side dies or gives up, the program is ended
(TERM), before its input. Several may listen at one name, and take turns.

The program is told who has connected, in ZPIPES_PEER_UID, ZPIPES_PEER_GID, ZPIPES_PEER_PID and
ZPIPES_PEER_KEY, as far as that is known.

TERM, INT or HUP ends it: it takes no more connections, lets those that there are finish, and
exits with status 0 if --grace was enough. A second signal ends it at once.`,
		Flags: s.flags(),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			own, p, err := splitProgram(cmd.Args().Slice())
			if err != nil {
				return err
			}
			name, err := oneOf(cmd, own, "listener")
			if err != nil {
				return err
			}
			if p == nil {
				return usageError{"which program? zpipes listen " + cmd.ArgsUsage}
			}
			c, err := connect(cmd, s.timeout)
			if err != nil {
				return err
			}
			defer c.Close()
			l, err := c.Listen(ctx, name)
			if err != nil {
				return causeOf(ctx, err)
			}
			return s.serve(ctx, l, func(ctx context.Context, n net.Conn) error {
				return s.converse(ctx, n.(*zpipes.Conn), &program{path: p.path, argv: p.argv, done: make(chan struct{})})
			})
		},
	}
}

// converse runs the program on a connection.
func (s *server) converse(ctx context.Context, n *zpipes.Conn, p *program) error {
	p.env = peerEnv(n.Peer())
	child, err := p.both()
	if err != nil {
		n.CloseWithError(err)
		return err
	}
	return s.couple(ctx, newPipeSide(n), child)
}

const peerPrefix = "ZPIPES_PEER_"

// peerEnv is the environment for a program that talks to who: what this one has been told
// of another peer is not true there.
func peerEnv(who zpipes.Access) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, peerPrefix) })
	for _, id := range []struct {
		name string
		n    int
	}{{"UID", who.UID}, {"GID", who.GID}, {"PID", who.PID}} {
		if id.n >= 0 {
			env = append(env, fmt.Sprintf("%s%s=%d", peerPrefix, id.name, id.n))
		}
	}
	if who.Key != "" {
		env = append(env, peerPrefix+"KEY="+who.Key)
	}
	return env
}

// both starts the program between two pipes.
func (p *program) both() (*programSide, error) {
	in, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	r, out, err := os.Pipe()
	if err != nil {
		w.Close()
		return nil, err
	}
	defer out.Close()
	if err := p.start(in, out); err != nil {
		w.Close()
		r.Close()
		return nil, err
	}
	return &programSide{&programOutput{r, p}, w}, nil
}

// programSide is a program that couple talks to. In place of its output's end comes its
// failure; and one whose output nobody wants any more may finish.
type programSide struct {
	out *programOutput
	in  *os.File
}

func (s *programSide) Read(b []byte) (int, error) {
	n, err := s.out.Read(b)
	if errors.Is(err, os.ErrClosed) {
		<-s.out.p.done
	}
	return n, err
}

func (s *programSide) Write(b []byte) (int, error) { return s.in.Write(b) }
func (s *programSide) CloseWrite() error           { return s.in.Close() }

func (s *programSide) CloseRead() error {
	s.out.Close()
	<-s.out.p.done
	return nil
}

// Close ends it before it finds the end of its input.
func (s *programSide) Close() error {
	s.out.p.end()
	s.in.Close()
	return s.out.Close()
}

func (s *programSide) tear(error) { s.Close() }
func (s *programSide) gone() bool { return true } // the end of its output is its own
