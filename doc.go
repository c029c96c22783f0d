// Package zpipes is named pipes for Go: a writer on one side, a reader on the
// other, and a name by which they find each other, whether they are goroutines of
// one process or programs on one machine.
//
// A pipe carries bytes in one direction. Its ends are an [io.Writer] and an
// [io.Reader] like any other, so that [io.Copy], bufio, compress/gzip, encoding/json
// or net/http work with them as they are:
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
// machine. [NewBroker] starts one inside the calling process; no other program has
// to run. A [Client] opens the ends of a broker's pipes. [NewClient] takes the
// broker's name, or an endpoint in full.
//
// A pipe comes into being when its first end is opened, [Client.OpenReader] or
// [Client.OpenWriter], and either may come first. It has one reader and one writer;
// a second one is refused with [ErrPipeBusy]. As soon as either end has closed, the
// name is free again, and the next open with it begins a new pipe. The end that
// stayed keeps the old one: a reader can still read all that was confirmed before
// its writer left.
//
// A writer without a reader can write as much as its window holds, and then waits.
// Flush waits for a reader from the first byte on, and Close always: the end is part of the
// stream, also of one without a byte.
//
// # Directly, or over ZeroMQ
//
// A client that was given a name looks for a broker of that name in its own process
// first. Where there is one, its ends work on the broker's pipes themselves, without
// a message and without ZeroMQ in between: a Write copies bytes into a buffer, and a
// Read copies them out. Else, and always when it was given an endpoint, the client
// speaks to the broker over ZeroMQ; all its ends share one connection, and one
// goroutine serves it. Both behave alike, but that a connection can be lost.
//
// An open waits up to [ClientConfig].Timeout for a broker that is not there yet. So
// processes may start in any order.
//
// # Writing
//
// [Writer.Write] returns when the pipe has room for the bytes, or the end's window,
// 256 KiB unless [ClientConfig].Window says otherwise. What many small Writes leave there travels
// together in one message. What can't be delivered shows as an error of the next
// call.
//
// [Writer.Flush] returns when all that was written is confirmed: a reader is attached,
// and the broker has the bytes. From then on they reach the reader (unless it or the
// broker goes first), even if the writing process dies. It does not mean that the
// reader has read them. [Writer.Close] flushes too, and tells the reader that this
// was all. Where that fails, the error has an [UndeliveredError] in it, which
// counts the bytes that are not confirmed. Always look at the error of Close.
//
// A program that finds half-way that it can't go on calls [Writer.CloseWithError]
// instead, and the reader will not take what it got for the whole.
//
// # Queues
//
// A [Queue] is the other kind of pipe:
//
//   - A stream has one writer and one reader, and an end; a queue has any number of
//     senders and receivers, and none.
//   - In a stream, bytes flow, however they were written; a queue keeps chunks whole,
//     and each is received by one receiver.
//   - A stream's ends belong together, and one learns what becomes of the other; a
//     queue outlives them all, and keeps what nobody has received.
//   - So a stream is for a file, a log, the output of a command; a queue is for jobs,
//     events, lines from many sources.
//   - Senders take turns, receivers are served in the order in which they asked.
//
// [Client.OpenQueue] opens one, and both [Queue.Send] and [Queue.Receive] work on what
// it returns:
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
// Send has a window, as Write has, and [Queue.Flush] and [Queue.Close] confirm. A chunk
// is received at least once: should a receiver die in the moment in which Receive
// returns, or before it, the chunk goes to another one. Programs in other
// languages use a queue through a simple text interface, which docs/PROTOCOL.md
// describes. A [Reader] of a queue's name gets the bytes of its chunks, a [Writer]
// sends its bytes in chunks of whatever size.
//
// # Reading
//
// [Reader.Read] returns what is there, and waits only where there is nothing. How a
// stream ended is for its error to say:
//
//   - [io.EOF]: the writer closed, and all was read. Nothing else is io.EOF;
//   - [io.ErrUnexpectedEOF]: the writer's process died, it gave up, or it called
//     CloseWithError. What had been confirmed was read before;
//   - [ErrBrokerGone]: the broker has closed or died.
//
// A reader that wants no more closes. The writer's next call then returns
// [io.ErrClosedPipe].
//
// # Errors
//
// Every call that fails returns an [*OpError], which says what was tried and where.
// The exceptions are io.EOF, which Read returns bare as everybody expects, and the
// errors of foreign readers and writers in [Writer.ReadFrom] and [Reader.WriteTo]. Ask
// for causes with [errors.Is] and [errors.As], never for texts:
//
//	_, err := w.Write(data)
//	switch {
//	case errors.Is(err, io.ErrClosedPipe): // the reader has left
//	case errors.Is(err, os.ErrDeadlineExceeded): // a deadline; the pipe is usable still
//	case errors.Is(err, zpipes.ErrBrokerGone): // open again, when there is a broker
//	case errors.Is(err, os.ErrClosed): // this end was closed, here
//	}
//
// Contexts matter while opening. Reads and writes have deadlines as in [net.Conn]:
// one that has passed loses nothing, and after setting a later one the pipe
// goes on.
//
// # Concurrency
//
// All methods may be called by several goroutines at the same time. Reads take
// turns, and so do Writes: the bytes of one Write are never mixed with another's. Close
// and CloseWithError unblock the calls that wait on the same end, which return
// [os.ErrClosed]. To close again waits for the first Close, and returns nil. [Client.Close] closes all
// that the client has opened, [Broker.Close] all pipes; [Broker.Shutdown] lets readers
// finish first.
//
// The package starts no goroutine that its Closes do not end, and handles no signals.
//
// # Bounds
//
// Nothing grows without limit. A pipe, stream or queue, holds up to [BrokerConfig].MaxPending bytes in
// the broker, 1 MiB by default, besides the window of its writer and, across
// processes, up to four times as much as that window which its reader has asked for
// in advance. A Write beyond that waits for the reader. What one client in another
// process may hold at a broker, and all those of one user, is limited, too:
// [BrokerConfig].PerClient and PerUser.
//
// # Who may connect
//
// Between processes of one machine, a broker serves its own user and root. Others need
// [BrokerConfig].AllowUIDs; Allow decides pipe by pipe. A client uses only brokers of its
// own user or root, and of [ClientConfig].TrustUIDs. A broker that is
// [BrokerConfig].Private can't even be reached by others.
//
// By its name, a client looks for a broker in its own process, then among the private
// brokers of its user, then on the machine, and takes the first that is there. If that
// one is not to be trusted, or turns the client away, the open fails with
// fs.ErrPermission at once. A user's broker does not start where the same user has a
// private one of that name, nor the reverse.
//
// # Death
//
// A process that dies does not close its ends in order, and the other side learns
// that: a reader gets io.ErrUnexpectedEOF behind the last confirmed byte, a writer
// io.ErrClosedPipe. It takes less than 3 seconds with the default
// [ClientConfig].Heartbeat, whatever the process was doing. When the broker dies,
// both get ErrBrokerGone. Ends that were open stay dead, but the same Client can
// open new ones as soon as a broker is back.
//
// # The protocol
//
// On the wire this is ZPIPES, the protocol of zbroker, so that programs in C and
// other languages can be at the other end. A client connects a DEALER socket to the
// broker's ROUTER, and each message is one frame:
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
// Two sides that both come from this package agree in their first messages, PING and
// PING_OK, on an extension that adds what that can't do: many pipes over one
// connection, reads of what is there, a credit for reads so that data need not wait
// for requests, causes and heartbeats. With a broker that knows only the base
// protocol, the client uses that; see [ClientConfig].ReadSize. The file
// docs/PROTOCOL.md describes all of it.
package zpipes
