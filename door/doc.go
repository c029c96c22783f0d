// Package door lets programs that know only HTTP take part: browsers, curl,
// whatever has a web client. It is an [http.Handler] to mount in any server:
//
//	http.Handle("/pipes/", door.New(client))
//	http.Handle("/queues/", door.New(client))
//
// A pipe is written by PUT or POST, and read by GET; either may come first, and
// at the other end there may as well be a zpipes.Reader or Writer:
//
//	curl -T backup.tar http://localhost:8080/pipes/backup
//	curl -f http://localhost:8080/pipes/backup >backup.tar
//
// The body of a POST to a queue is a chunk, and GET takes one:
//
//	curl -f --data-binary @job http://localhost:8080/queues/jobs
//	curl -f 'http://localhost:8080/queues/jobs?wait=10s'
//
// A name is what follows, slashes included; other bytes are escaped as in any
// URL, and the names . and .. as %2E and %2E%2E (browsers can't ask for these two,
// since they take them for directories). Mounted below a path of its own, as in /api/pipes/NAME, the handler
// wants that path taken away, by [http.StripPrefix]. An [http.ServeMux] leads a request for /pipes//a to
// /pipes/a instead (status 307, which is a success for curl -f, though nothing was written): there,
// escape such a slash as %2F, too.
//
// # Pipes
//
// A whole stream is a whole answer, and nothing else is. If the writer dies,
// gives up, or its upload breaks off, the chunked encoding of the answer is cut
// (HTTP/2: the stream is reset), which every client reports: curl with status
// 18. This is why HTTP/1.0, which has no such encoding, is refused for GET. The
// answer begins with the first byte that comes, or with the end.
//
// An upload is answered with 200 when a reader is there and the broker has all
// of it, the end included; so it waits for a reader for as long as the client
// does. It is asked for only when it is the pipe's writer (Expect:
// 100-continue), and taken as fast as the reader reads. If the reader leaves,
// the upload ends with 410, at most a moment later.
//
// The Content-Type of an upload is that of the download if both go through the
// same handler: a broker knows bytes only. Types that browsers run (HTML, XML,
// scripts), and those that curl and forms send where nobody has said anything,
// become application/octet-stream.
//
// # Broadcasts
//
// With ?broadcast, PUT and POST write a broadcast: any number of GETs of the pipe
// get all of it, each from the beginning of what its writer wrote at once; they
// and zpipes.Readers may come and go. The settings are those of
// zpipes.BroadcastConfig:
//
//	curl -T . 'http://localhost:8080/pipes/log?broadcast&keep=65536&patience=10s'
//
// ?keep= is how many bytes one that comes late gets first, ?readers= how many the
// upload waits for (default 0, where it waits for none: what nobody reads is
// gone), and ?patience= how long the slowest may hold it up (default for ever).
// The answer to one that was left behind is cut, and so is never short in
// silence.
//
// # Queues
//
// A POST or PUT is answered with 200 when the queue has the chunk, and waits
// while it is full. GET takes one chunk, and answers with 204 if none has come
// within the time of ?wait= (10s, 1m30s, or a number of seconds; default 0.2
// seconds). With ?follow it goes on: each chunk is a line, or with &null ends
// with a NUL byte, and there is no end but that of ?wait=, for a time without
// a chunk. A chunk that could not be written to its client goes back into the
// queue, behind others. HTTP has no word for having got an answer: what is
// on its way to a client that dies is lost.
//
// # Other answers
//
// HEAD takes nothing, and tells what is there: Zpipes-Reader and Zpipes-Writer
// of a stream, Zpipes-Readers and Zpipes-Lag-Bytes of a broadcast,
// Zpipes-Queued-Chunks and Zpipes-Users of a queue, Zpipes-Queued-Bytes of all, or
// 404. In a cluster it is what the client's own broker has.
//
//	400  a name that can't be, a body that broke off, a Content-Range
//	401  the token is missing or wrong
//	403  whoever asks may not: see Guard; or the broker refuses this process
//	404  HEAD: there is nothing of that name
//	405  another method
//	409  the pipe has a writer (or a reader) already, or it is a queue, or the queue a stream
//	410  the reader has left, or the queue was deleted
//	413  the chunk is too large: Config.MaxChunk, or the broker's own limit
//	416  a Range: what is read is gone, so that there are none
//	421  the Host is none of this server's
//	501  the broker can't do that
//	502  no broker, or it is gone
//	503  too many requests at a time (Config.MaxRequests), or too many pipes
//	505  HTTP/1.0
//
// # Who may come in
//
// By default the door is for its own machine: loopback addresses and Unix
// sockets. See [Guard] for the rest of the world: a token and TLS. Where any
// user of the machine must not come in, set a Token as well, or serve at a Unix
// socket in a directory of yours.
//
// The handler bounds how many requests it serves, and what each holds: a chunk,
// or what a pipe's window and the client's buffers hold. Connections that say
// nothing are the server's to bound: give it a ReadHeaderTimeout, an IdleTimeout
// and MaxHeaderBytes, and its listener a limit where strangers may connect. The
// handler lifts ReadTimeout and WriteTimeout for its own requests, since a
// stream takes as long as it takes. Middleware around it must have an Unwrap
// method (see [http.ResponseController]), must not gather the answer, and must
// let [http.ErrAbortHandler] pass.
package door
