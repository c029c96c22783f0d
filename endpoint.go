package zpipes

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// How a client finds the broker of a name, at each open anew:
//
//  1. a broker of that name in its own process;
//  2. the near door in its user's directory for private brokers, if that directory is the
//     user's alone and somebody serves the socket;
//  3. the near door of the name on the machine;
//  4. the ZeroMQ endpoint in that directory;
//  5. the ZeroMQ endpoint of the name on the machine (defaultEndpoint): a broker without a
//     near door, such as zbroker.
//
// The first that is there is the broker. One that the client does not trust, or that
// turns it away, is reported at once: it is neither waited for nor passed over. While
// nobody is there, the client looks again until its time is over. A broker that is
// found by its name does not start where its user's broker of that name serves at
// another of these places, so that all ends meet.
//
// A near door (unix://) is a Unix socket of our own, see near_door.go. A broker has one
// beside each of its ipc endpoints.

// places are the endpoints at which a client looks for a broker of that name.
func places(name string) []string {
	zmq := []string{defaultEndpoint(name)}
	if private, err := privateEndpoint(name); err == nil {
		zmq = []string{private, defaultEndpoint(name)}
	}
	near, _ := nearDoors(zmq)
	return append(near, zmq...)
}

const nearScheme = "unix://"

// nearDoors are those that a broker has which serves these endpoints: the ones among them,
// and one beside each ipc endpoint. without are those beside which there is no room for it.
func nearDoors(endpoints []string) (near, without []string) {
	for _, endpoint := range endpoints {
		if path, ok := strings.CutPrefix(endpoint, "ipc://"); ok && hasNear {
			endpoint = nearScheme + path + ".near"
			if _, _, err := parseEndpoint(endpoint); err != nil {
				without = append(without, nearScheme+path)
				continue
			}
		}
		if isNear(endpoint) && !slices.Contains(near, endpoint) {
			near = append(near, endpoint)
		}
	}
	return near, without
}

// isNear says that an endpoint is a near door.
func isNear(endpoint string) bool { return strings.HasPrefix(endpoint, nearScheme) }

func inprocEndpoint(name string) string { return "inproc://zpipes/" + name }

// memoryEndpoint is where a client has a session at a broker of its own process. Nobody
// can ask for it.
func memoryEndpoint(name string) string { return "memory://zpipes/" + name }

// maxSocketPath is what fits into the system's address of a Unix socket with its final
// NUL.
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// dialAddress turns an endpoint into what net.Dial takes, for a client that has a key or
// not; network is empty for inproc. It refuses one at which no broker can ever be.
func dialAddress(endpoint string, keyed bool) (network, address string, err error) {
	network, address, err = parseEndpoint(endpoint)
	if err != nil {
		return "", "", err
	}
	switch network {
	case "":
		name, ok := strings.CutPrefix(endpoint, inprocEndpoint(""))
		if !ok {
			return "", "", fmt.Errorf("%w: %q: a broker in this process is at %s", ErrBadName, endpoint, inprocEndpoint("NAME"))
		}
		err = checkBrokerName(name)
	case "tcp":
		switch host, port, _ := net.SplitHostPort(address); {
		case port == "0":
			err = fmt.Errorf("%w: %q: a client needs the number of the port; Broker.Endpoints has it", ErrBadName, endpoint)
		case host == "":
			err = fmt.Errorf("%w: %q: a client needs the name of the host", ErrBadName, endpoint)
		case !isLoopback(host) && !keyed:
			err = fmt.Errorf("%w: %q: beyond this machine tcp is encrypted; ClientConfig.Key is needed for that", ErrBadName, endpoint)
		}
	}
	return network, address, err
}

// bindAddress is dialAddress for a broker, and has the endpoint as libzmq binds it.
func bindAddress(endpoint string, keyed bool) (bound, network, address string, err error) {
	network, address, err = parseEndpoint(endpoint)
	if network != "tcp" {
		return endpoint, network, address, err
	}
	host, port, _ := net.SplitHostPort(address)
	switch {
	case !isLoopback(host) && !keyed:
		err = fmt.Errorf("%w: %q: only loopback addresses such as 127.0.0.1 are served unencrypted; "+
			"BrokerConfig.Key is needed for others", ErrBadName, endpoint)
	case host == "localhost":
		// libzmq binds numbers only.
		address = "127.0.0.1:" + port
		endpoint = "tcp://" + address
	}
	return endpoint, network, address, err
}

// isLoopback says that a host is sure to be this machine.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// parseEndpoint refuses what the library does not speak, and what the system can't. In
// the address of a wildcard port the port is 0; that of all of the machine's has no host.
func parseEndpoint(endpoint string) (network, address string, err error) {
	bad := func(format string, args ...any) (string, string, error) {
		return "", "", fmt.Errorf("%w: %q: %s", ErrBadName, endpoint, fmt.Sprintf(format, args...))
	}
	scheme, rest, _ := strings.Cut(endpoint, "://")
	switch {
	case rest == "":
		return bad("this is no endpoint such as ipc:///run/zpipes.sock")
	case strings.IndexByte(rest, 0) >= 0:
		return bad("an endpoint has no NUL byte")
	case scheme == "inproc":
		return "", rest, nil
	case scheme == "unix" && !hasNear:
		return bad("on this system a broker has no near door; use tcp:// on loopback")
	case scheme == "ipc" || scheme == "unix":
		switch {
		case rest == "*":
			return bad("name the path")
		case rest[0] == '@' && (rest == "@" || runtime.GOOS != "linux"):
			return bad("an abstract socket needs a name behind the @, and Linux")
		case len(rest) > maxSocketPath:
			return bad("a socket's path has at most %d bytes, this one %d", maxSocketPath, len(rest))
		}
		return "unix", rest, nil
	case scheme == "tcp":
		host, port, err := net.SplitHostPort(rest)
		if err != nil {
			return bad("%v", err)
		}
		if host == "*" {
			host = ""
		}
		if port == "*" {
			port = "0"
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
			return bad("a port is a number up to 65535; a broker's may be *")
		}
		return "tcp", net.JoinHostPort(host, port), nil
	}
	return bad("use unix://, ipc://, inproc:// or tcp://")
}

// isPath says that an address is a Unix socket in the file system.
func isPath(network, address string) bool {
	return network == "unix" && !strings.HasPrefix(address, "@")
}

// isPermanent says that what an attempt to connect met will not go away.
func isPermanent(err error) bool {
	return isOneOf(err, syscall.EINVAL, syscall.ENAMETOOLONG, syscall.ENOTSOCK, syscall.EPROTOTYPE, syscall.ENOTDIR, syscall.ELOOP)
}

// isUnserved says that nobody can be connected to at an address, by what an attempt met.
func isUnserved(err error) bool {
	return isOneOf(err, syscall.ENOENT, syscall.ECONNREFUSED) || isPermanent(err)
}

func isOneOf(err error, of ...syscall.Errno) bool {
	return slices.ContainsFunc(of, func(e syscall.Errno) bool { return errors.Is(err, e) })
}
