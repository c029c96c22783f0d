// Package zpipes is named pipes for Go: a writer on one side, a reader on the
// other, and a name by which they find each other, whether they are goroutines
// of one process or programs on one machine.
//
// A pipe carries bytes in one direction. Its ends are an [io.Writer] and an
// [io.Reader] like any other, so that [io.Copy], bufio, compress/gzip,
// encoding/json or net/http work with them as they are:
//
//	broker, err := zpipes.NewBroker("demo") // here, or in another process
//	...
//	client, err := zpipes.NewClient("demo")
//	...
//	w, err := client.OpenWriter(ctx, "greetings")
//	...
//	fmt.Fprintln(w, "hello")
//	err = w.Close() // delivers, and ends the stream
//
// And elsewhere:
//
//	client, err := zpipes.NewClient("demo")
//	...
//	r, err := client.OpenReader(ctx, "greetings")
//	...
//	_, err = io.Copy(os.Stdout, r) // nil: the writer closed, and this was all
//
// # Broker, client, pipe
//
// A [Broker] holds pipes and serves them under a name that is unique on the
// machine. [NewBroker] starts one inside the calling process; no other program
// has to run. A [Client] opens the ends of a broker's pipes. [NewClient] takes
// the broker's name, or a full endpoint.
//
// A pipe is created when its first end is opened, by [Client.OpenReader] or
// [Client.OpenWriter]; either may come first. It has one reader and one writer;
// a second one is refused with [ErrPipeBusy]. As soon as either end has closed,
// the name is free again, and the next open of it creates a new pipe. The end
// that is still open keeps the old pipe: a reader can still read all that was
// confirmed before its writer left.
//
// Without a reader, a writer can write as much as its window holds; then it
// waits. Flush waits for a reader if anything was written, and Close always
// does: the end is part of the stream, even of an empty one.
//
// # Directly, near, or over ZeroMQ
//
// A client that was given a name first looks for a broker of that name in its
// own process. If there is one, the client's ends work on the broker's pipes
// directly, without messages and without ZeroMQ: a Write copies bytes into a
// buffer, and a Read copies them out. Otherwise it looks for the broker's near
// door on this machine, a Unix socket, and needs no ZeroMQ there, either; on
// Linux a busy stream then goes through memory that both ends share. Where
// there is no such door, as at zbroker, and if it was given an endpoint of
// ZeroMQ, the client speaks to the broker over ZeroMQ. All its ends share one
// connection, which one goroutine serves. All ways behave alike, except that a
// connection can be lost. [Client.Endpoint] tells which one it is.
//
// An open waits up to [ClientConfig].Timeout for a broker that is not there
// yet, so processes may start in any order.
//
// # Writing
//
// [Writer.Write] returns as soon as there is room for the bytes in the pipe or
// in the writer's window, which is 256 KiB unless [ClientConfig].Window says
// otherwise. Many small Writes in the window travel together in one message. If
// bytes can't be delivered, the next call returns the error.
//
// [Writer.Flush] returns when all that was written is confirmed: a reader is
// attached, and the broker has the bytes. From then on they reach the reader
// even if the writing process dies (but not if the reader or the broker goes
// first). It does not mean that the reader has read them. [Writer.Close]
// flushes as well, and tells the reader that this was all. If that fails, the
// error wraps an [UndeliveredError], which counts the bytes that are not
// confirmed. Always check the error of Close.
//
// A program that can't finish a stream calls [Writer.CloseWithError] instead,
// so that the reader does not take what it got for the whole.
//
// # Queues
//
// A [Queue] is the other kind of pipe:
//
//   - A stream has one writer, one reader, and an end. A queue has any number
//     of senders and receivers, and no end.
//   - A stream carries bytes; how they were cut into Writes does not matter. A
//     queue keeps chunks whole, and each goes to one receiver.
//   - The ends of a stream belong together, and each learns what becomes of the
//     other. A queue outlives them all, and keeps what nobody has received.
//   - So a stream is for a file, a log or the output of a command; a queue is
//     for jobs, events, or lines from many sources.
//   - The senders of a queue take turns; receivers are served in the order in
//     which they asked.
//
// [Client.OpenQueue] opens one, to send and to receive:
//
//	q, err := client.OpenQueue(ctx, "jobs")
//	...
//	err = q.Send(ctx, []byte("resize cat.jpg"))
//
// And in as many processes as there is work for:
//
//	for job, err := range q.All(ctx) {
//		...
//	}
//
// Send has a window, as Write has, and [Queue.Flush] and [Queue.Close] confirm.
// A chunk is delivered at least once: if a receiver dies before Receive
// returns, or in that very moment, the chunk goes to another receiver. A queue
// that somebody only waited at, and that never had a chunk, goes when its last
// user closes it.
//
// A queue of a [QueueConfig] with Durable set outlives the broker, which needs a
// [BrokerConfig].Dir for it: what Flush confirmed is on the disk. [Queue.Take]
// and [Job.Done] in place of Receive keep a job in the queue until the work is
// done. docs/JOBS.md says what each call promises.
//
// Programs in other languages use a queue through a simple text interface,
// which docs/PROTOCOL.md describes. A [Reader] that is opened with a queue's
// name reads the bytes of its chunks; a [Writer] sends its bytes as chunks of
// any size.
//
// # Connections
//
// A [Listener] takes connections at a name, and [Client.Dial] makes one: a
// [Conn] is two pipes, one in each direction, which have no names of their own.
// They are a [net.Listener] and a [net.Conn], so that net/http, crypto/tls,
// net/rpc and the like run over a broker as they are; for http.Transport and
// gRPC there is [Client.DialContext]. Any number may listen at one name, also in
// different processes, and take turns. Where nobody does, a dial fails at once
// with [ErrNoListener]; else it succeeds before it is accepted, as with Unix
// sockets, while there is room in [BrokerConfig].Backlog. [Conn.Peer] says whose
// process is at the other end. Where brokers of several hosts act as one, who
// listens may be at any of them; those at the dialler's own broker come first.
//
// Close of a Conn returns at once and delivers in the background. Close the
// Client before the program ends: that waits.
//
// # Broadcasts
//
// [Client.OpenBroadcast] opens a stream to any number of readers, each of which
// gets all that is written from its open on: a log, a feed, a file for many. Its
// end is a [Writer], and theirs are Readers as any others. A [BroadcastConfig]
// says what a reader that comes late gets first, whether the writer waits for
// readers, and for how long one that stands still may hold it up. That one gets
// [ErrTooSlow] then, and a [MissedError] says how much it missed: no reader ever
// gets bytes with a gap between them. Between brokers that act as one, readers may
// be at any of them; see docs/MACHINES.md.
//
// # Reading
//
// [Reader.Read] returns what is there, and waits only if there is nothing. Its
// error says how the stream ended:
//
//   - [io.EOF]: the writer closed, and all was read. Nothing else is io.EOF;
//   - [io.ErrUnexpectedEOF]: the writer's process died, it gave up, or it
//     called CloseWithError. All that had been confirmed has been read by then;
//   - [ErrBrokerGone]: the broker has closed or died.
//
// A reader that wants no more closes. Then the writer's next call returns
// [io.ErrClosedPipe].
//
// # Errors
//
// A call that fails returns an [*OpError], which says what was tried and where.
// The exceptions are io.EOF, which Read returns bare as everybody expects; the
// errors of the source and the destination in [Writer.ReadFrom] and
// [Reader.WriteTo]; and the error of the context in [Broker.Shutdown]. Find
// causes with [errors.Is] and [errors.As], and do not compare texts:
//
//	_, err := w.Write(data)
//	switch {
//	case errors.Is(err, io.ErrClosedPipe): // the reader has left
//	case errors.Is(err, os.ErrDeadlineExceeded): // a deadline; the pipe is still usable
//	case errors.Is(err, zpipes.ErrBrokerGone): // open again, when there is a broker
//	case errors.Is(err, os.ErrClosed): // this end was closed, here
//	}
//
// The context of an open ends the open, not what it has opened. Reads and
// writes have deadlines as in [net.Conn]: one that has passed loses nothing,
// and the pipe goes on as soon as a later one is set. The calls of a Queue have
// a context each.
//
// # Concurrency
//
// All methods may be called by several goroutines at the same time. Reads take
// turns, and so do Writes: the bytes of one Write are never mixed with
// another's. Close and CloseWithError unblock the calls that wait on the same
// end, which return [os.ErrClosed]. A second Close waits for the first one, and
// returns nil. [Client.Close] closes all that the client has opened,
// [Broker.Close] closes all pipes, and [Broker.Shutdown] lets readers finish
// first.
//
// The package starts no goroutine that outlives the Close of its broker or
// client (unless a Logger or an Allow of yours hangs), and it handles no
// signals.
//
// # Bounds
//
// Nothing grows without limit. A pipe, stream or queue, holds up to
// [BrokerConfig].MaxPending bytes in the broker, 1 MiB by default. The writer's
// window comes on top of that, and between processes what a reader has asked for
// ahead: up to four times its [ClientConfig].Window. Then Write waits for the
// reader. [BrokerConfig].PerClient and PerUser limit what one connection,
// and all those of one user, may hold at a broker.
//
// # Who may connect
//
// Between processes of one machine, a broker serves its own user and root.
// [BrokerConfig].AllowUIDs names others, and Allow decides pipe by pipe. A
// client uses only brokers of its own user, of root, and of
// [ClientConfig].TrustUIDs. Other users can't even connect to a broker that is
// [BrokerConfig].Private.
//
// A client looks for the name of a broker in its own process, then among the
// private brokers of its user, then on the machine, and takes the first one it
// finds. If that one is not to be trusted, or turns the client away, the open
// fails with fs.ErrPermission at once. So that all ends of a name meet, a
// broker does not start if its own user has another one of that name at the
// other of the last two places.
//
// Programs on other machines come by tcp, encrypted, with a [Key] that the broker has
// as well, or one that it is told of: [BrokerConfig].Key and AllowKeys, [ClientConfig].Key
// and BrokerKey. docs/MACHINES.md shows how to set it up.
//
// # Death
//
// When a process dies without closing its ends, the other side learns of it: a
// reader gets io.ErrUnexpectedEOF after the last confirmed byte, and a writer
// gets io.ErrClosedPipe. That takes less than 3 seconds with the default
// [ClientConfig].Heartbeat, whatever the process was doing (over encrypted tcp
// up to 10, if it stands still, or its host has lost power). When the broker
// dies, both get ErrBrokerGone. Ends that were open stay dead, but the same
// Client can open new ones as soon as there is a broker again.
//
// # The protocol
//
// On the wire this is ZPIPES, the protocol of zbroker, so programs in C and
// other languages can be at the other end. A client connects a DEALER socket to
// the broker's ROUTER, and each message is one frame:
//
//	reader                broker                writer
//	INPUT name      --->        <---       OUTPUT name
//	                <--- INPUT_OK   OUTPUT_OK --->
//	READ size       --->        <---       WRITE chunk
//	                <--- READ_OK     WRITE_OK --->
//	                            <---       CLOSE
//	                            CLOSE_OK --->
//	READ size       --->
//	                <--- READ_END
//	CLOSE           --->
//	                <--- CLOSE_OK
//
// Two sides that both use this package agree in their first messages, PING and
// PING_OK, on an extension of this base protocol. It adds many pipes over one
// connection, reads of what is there, a credit for reads so that data need not
// wait for requests, causes, and heartbeats. With a broker that knows only the
// base protocol, the client uses that; see [ClientConfig].ReadSize. The file
// docs/PROTOCOL.md describes all of it.
package zpipes
