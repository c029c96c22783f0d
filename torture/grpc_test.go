package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"

	"github.com/zpipes/zpipes"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// echoService is a service of gRPC, without generated code.
var echoService = grpc.ServiceDesc{
	ServiceName: "Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Once",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			b := new(wrapperspb.BytesValue)
			return b, decode(b)
		},
	}},
	Streams: []grpc.StreamDesc{{
		StreamName:    "All",
		ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, s grpc.ServerStream) error {
			for {
				b := new(wrapperspb.BytesValue)
				if err := s.RecvMsg(b); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(b); err != nil {
					return err
				}
			}
		},
	}},
}

// gRPC finds nothing in our connections that it misses, in each way to a broker; a server
// that stops leaves nothing behind.
func TestGRPC(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			b, err := way.broker.NewBroker("")
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			there, err := zpipes.NewClient(endpoint(b, way.reach))
			if err != nil {
				t.Fatal(err)
			}
			defer there.Close()
			here, err := zpipes.NewClient(endpoint(b, way.reach))
			if err != nil {
				t.Fatal(err)
			}
			defer here.Close()
			l, err := there.Listen(t.Context(), "echo")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			server.RegisterService(&echoService, nil)
			served := make(chan error, 1)
			go func() { served <- server.Serve(l) }()
			conn, err := grpc.NewClient("passthrough:echo",
				grpc.WithContextDialer(func(ctx context.Context, name string) (net.Conn, error) { return here.DialContext(ctx, "zpipes", name) }),
				grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()

			want := bytes.Repeat([]byte("zpipes"), 100_000)
			got := new(wrapperspb.BytesValue)
			if err := conn.Invoke(t.Context(), "/Echo/Once", wrapperspb.Bytes(want), got); err != nil || !bytes.Equal(got.Value, want) {
				t.Errorf("a call: %d bytes, %v", len(got.Value), err)
			}
			s, err := conn.NewStream(t.Context(), &echoService.Streams[0], "/Echo/All")
			if err != nil {
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			const messages = 300
			go func() {
				for i := range messages {
					if err := s.SendMsg(wrapperspb.Bytes(want[:i*100])); err != nil {
						sent <- err
						return
					}
				}
				sent <- s.CloseSend()
			}()
			for i := range messages {
				if err := s.RecvMsg(got); err != nil || !bytes.Equal(got.Value, want[:i*100]) {
					t.Fatalf("message %d of a stream: %d bytes, %v", i, len(got.Value), err)
				}
			}
			if err := s.RecvMsg(got); err != io.EOF {
				t.Errorf("behind the stream: %v", err)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}

			// What is open is ended by a server that stops, and what is called then finds none.
			s, err = conn.NewStream(t.Context(), &echoService.Streams[0], "/Echo/All")
			if err != nil {
				t.Fatal(err)
			}
			server.Stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
			if err := s.RecvMsg(got); status.Code(err) != codes.Unavailable {
				t.Errorf("a stream of a server that has stopped: %v", err)
			}
			err = conn.Invoke(t.Context(), "/Echo/Once", wrapperspb.Bytes(want), got)
			if status.Code(err) != codes.Unavailable {
				t.Errorf("a call without a server: %v", err)
			}
		})
	}
}
