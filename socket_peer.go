package zpipes

// liveness is what the system says about a connection.
type liveness byte

const (
	unknown liveness = iota
	present          // it is there
	absent           // it has ended; what it had sent before may still come
)

// A netSocket is a connection's end in this process: the descriptor, which may be
// another's as soon as the connection has ended, and what is different then.
type netSocket struct {
	fd    int
	inode uint64 // 0: not known
}
