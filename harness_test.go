package zpipes

import (
	"flag"
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// result is what a call in another goroutine returned.
type result struct {
	n   int
	err error
}

// inBackground calls f in another goroutine.
func inBackground(f func() (int, error)) chan result {
	done := make(chan result, 1)
	go func() {
		n, err := f()
		done <- result{n, err}
	}()
	return done
}

// eventually waits until something is so, which must not take long.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	eventuallyWithin(t, soon, what, so)
}

// eventuallyWithin is eventually for what may take so long. Time in which this process had to wait
// for a processor does not count: what it waits for will have waited, too.
func eventuallyWithin(t testing.TB, d time.Duration, what string, so func() bool) {
	t.Helper()
	left, looked := d, time.Now()
	for !so() {
		if left < 0 {
			t.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(time.Millisecond)
		now := time.Now()
		left -= min(now.Sub(looked), 5*time.Millisecond)
		looked = now
	}
}

// soon is how long what happens at once may take on a busy machine. It is not more than
// ClientConfig's Timeout, at whose end nearly everything happens. dead is what the library
// promises for noticing a death; on a busy machine it is dead + soon, and that is less than
// BrokerConfig's ClientTimeout.
const (
	soon = 5 * time.Second
	dead = 3 * time.Second
)

// effort is how much to do of what could be done any number of times: n, or with -short, or the
// race detector, under which all takes many times as long, a fifth of that.
func effort(n int) int {
	if testing.Short() || underRace {
		return max(1, n/5)
	}
	return n
}

// noise returns n reproducible random bytes.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	src.Read(b)
	return b
}

// beforeTests is for a process that has something else to do.
var beforeTests = func() {}

// atOnce is how many parallel tests run at the same time: most of what they do is wait.
const atOnce = 8

func TestMain(m *testing.M) {
	beforeTests()
	flag.Parse()
	if n := flag.Lookup("test.parallel"); n.Value.String() == n.DefValue {
		flag.Set(n.Name, strconv.Itoa(max(atOnce, runtime.GOMAXPROCS(0))))
	}
	goleak.VerifyTestMain(m)
}
