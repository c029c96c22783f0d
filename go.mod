module github.com/zpipes/zpipes

go 1.25.0

require (
	github.com/google/go-cmp v0.7.0
	github.com/pebbe/zmq4 v1.4.0
	go.uber.org/goleak v1.3.0
	golang.org/x/sync v0.20.0
	golang.org/x/sys v0.47.0
	pgregory.net/rapid v1.3.0
)

require github.com/anishathalye/porcupine v1.3.1
