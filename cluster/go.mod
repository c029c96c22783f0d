module github.com/zpipes/zpipes/cluster

go 1.25.0

require (
	github.com/zpipes/zpipes v0.1.0
	go.uber.org/goleak v1.3.0
)

require (
	github.com/pebbe/zmq4 v1.4.0 // indirect
	golang.org/x/sync v0.20.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
)
