module github.com/zpipes/zpipes/torture

go 1.25.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/pebbe/zmq4 v1.4.0
	github.com/zpipes/zpipes v0.1.0
	github.com/zpipes/zpipes/cluster v0.0.0
	go.uber.org/goleak v1.3.0
	golang.org/x/net v0.57.0
	golang.org/x/sys v0.47.0
	google.golang.org/grpc v1.82.1
	google.golang.org/protobuf v1.36.11
)

require (
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/text v0.40.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260414002931-afd174a4e478 // indirect
)

// Nobody installs this, so it always goes with what it stands beside.
replace (
	github.com/zpipes/zpipes => ..
	github.com/zpipes/zpipes/cluster => ../cluster
)
