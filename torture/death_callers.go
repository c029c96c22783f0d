package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
)

// A caller is a process with connections that it has dialled or accepted, and that dies or
// stops while it uses them. This is what it does itself; the rest is in death_calls.go.

func init() {
	parts["caller"] = playCaller
	parts["web"] = playWeb
}

// A caller is one end of a connection there: two actors, who write and read.
type caller struct {
	w, r         actor
	listens, far bool
}

func playCaller(t task) error {
	client, err := zpipes.ClientConfig{Timeout: t.Fate.Timeout}.NewClient(t.Broker)
	if err != nil {
		return err
	}
	told := make(chan struct{})
	for i := 0; i < len(t.Fate.Roles); i += 2 {
		half := func(i int) actor {
			return actor{
				client: client, index: i, pipe: endName(t.Pipe, i/2), seed: t.Seed + uint64(i),
				rand: rand.New(rand.NewPCG(t.Seed, uint64(i))),
			}
		}
		c := caller{half(i), half(i + 1), t.Fate.Listens, t.Fate.Far}
		if t.Fate.Echo {
			c.r.seed = c.w.seed
			c.r.finite = true // it reads to the end
		}
		if t.Fate.Far {
			c.w.finite, c.r.finite = true, true
			if c.listens {
				c.w.seed, c.r.seed = c.r.seed, c.w.seed
			}
		}
		go func() {
			c.play()
			<-told
			again := caller{c.w.next(), c.r.next(), c.listens, c.far}
			again.play()
		}()
	}
	return obey(told)
}

func (c *caller) play() {
	n, err := c.meet()
	if err != nil {
		c.w.report(err)
		c.r.report(err)
		return
	}
	defer n.Close()
	c.w.say("opened", 0, "")
	c.r.say("opened", 0, "")
	var both sync.WaitGroup
	both.Go(func() { c.w.report(c.w.pour(outward{n})) })
	both.Go(func() { c.r.report(c.r.drink(inward{n})) })
	both.Wait()
}

func (c *caller) meet() (*zpipes.Conn, error) {
	if !c.listens {
		c.w.say("dialling", 0, "")
		for end := time.Now().Add(notice); ; time.Sleep(tick) {
			n, err := c.w.client.Dial(background, c.w.pipe)
			if !c.far || !errors.Is(err, zpipes.ErrNoListener) || time.Now().After(end) {
				return n, err
			}
		}
	}
	l, err := c.w.client.Listen(background, c.w.pipe)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	c.w.say("listening", 0, "")
	c.w.pause()
	n, err := l.Accept()
	if err != nil {
		return nil, err
	}
	return n.(*zpipes.Conn), nil
}

// outward and inward are the ends of a connection's two streams.
type (
	outward struct{ *zpipes.Conn }
	inward  struct{ *zpipes.Conn }
)

func (o outward) Close() error { return o.CloseWrite() }
func (i inward) Close() error  { return i.CloseRead() }

// Flush tells only whether there has been an error.
func (o outward) Flush() error {
	_, err := o.Write(nil)
	return err
}

// playWeb is an HTTP server, or a client that makes one request after the other.
func playWeb(t task) error {
	client, err := zpipes.NewClient(t.Broker)
	if err != nil {
		return err
	}
	a := actor{client: client, pipe: t.Pipe, rand: rand.New(rand.NewPCG(t.Seed, 0))}
	wrong := func(err error) { a.say("wrong", 0, err.Error()) }
	if t.Fate.Listens {
		l, err := client.Listen(background, t.Pipe)
		if err != nil {
			return err
		}
		a.say("opened", 0, "")
		go http.Serve(l, site{wrong})
		<-untilToldTo()
		return nil
	}
	go func() {
		web := browser(client)
		for n := int64(0); ; n++ {
			if err := visit(background, web, t.Pipe, a.rand); err != nil {
				if errors.As(err, new(wrongBytes)) {
					wrong(err)
				}
				a.report(err)
				return
			}
			a.say("opened", n, "")
		}
	}()
	<-untilToldTo()
	return nil
}

// A site takes a stream of a request, which says what it will be, and answers with another.
type site struct{ wrong func(error) }

func (s site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	size, err := strconv.ParseInt(r.FormValue("size"), 10, 64)
	seed, failed := strconv.ParseUint(r.FormValue("seed"), 10, 64)
	if err = errors.Join(err, failed); err == nil {
		err = takes(r.Body, seed, size)
	}
	if errors.As(err, new(wrongBytes)) {
		s.wrong(err)
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if _, err := io.Copy(w, &flow{seed: ^seed, left: size}); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// takes reads a whole stream. One that is not whole, but has a clean end, is wrong.
func takes(r io.Reader, seed uint64, size int64) error {
	o := oracle{seed: seed}
	err := o.readAll(r, 32<<10)
	if err == nil && o.off != size {
		err = wrongBytes{fmt.Errorf("a clean end behind %d bytes of %d", o.off, size)}
	}
	return err
}

// A flow makes the bytes of a stream.
type flow struct {
	seed      uint64
	off, left int64
}

func (f *flow) Read(b []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), f.left)]
	fill(b, f.seed, f.off)
	f.off += int64(len(b))
	f.left -= int64(len(b))
	return len(b), nil
}

func browser(c *zpipes.Client) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: c.DialContext}}
}

// visit makes a request of a site, whose answer must be whole where there is no error.
func visit(ctx context.Context, web *http.Client, name string, r *rand.Rand) error {
	return post(ctx, web, name, r.Int64N(1<<(10+r.IntN(13))), r.Uint64())
}

func post(ctx context.Context, web *http.Client, name string, size int64, seed uint64) error {
	url := fmt.Sprintf("http://%s/?size=%d&seed=%d", name, size, seed)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, &flow{seed: seed, left: size})
	if err != nil {
		return err
	}
	answer, err := web.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return wrongBytes{errors.New(answer.Status)}
	}
	return takes(answer.Body, ^seed, size)
}
