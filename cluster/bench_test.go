//go:build unix

package cluster

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zpipes/zpipes"
)

var benchMembers = flag.Int("members", 100, "brokers of BenchmarkMeshed")

// BenchmarkMeshed has brokers in one process, each linked with all others, and tells what that
// costs while nothing is going on. Run it with -benchtime 1x.
func BenchmarkMeshed(b *testing.B) {
	for b.Loop() {
		n := *benchMembers
		file := keyFile(b, zpipes.NewKey())
		began := time.Now()
		first, _ := start(b, Config{KeyFile: file})
		brokers := []*zpipes.Broker{first}
		for range n - 1 {
			more, _ := start(b, Config{KeyFile: file, Join: []string{self(first).Address}})
			brokers = append(brokers, more)
		}
		eventuallyIn(b, 5*time.Minute, "all are linked", func() bool {
			for _, x := range brokers {
				if len(linked(x)) != n-1 {
					return false
				}
			}
			return true
		})
		b.ReportMetric(time.Since(began).Seconds(), "s-to-mesh")
		debug.FreeOSMemory()
		const idle = 20 * time.Second
		from := cpu(b)
		time.Sleep(idle) // what is measured is that nothing happens
		b.ReportMetric(100*(cpu(b)-from).Seconds()/idle.Seconds(), "%core")
		b.ReportMetric(resident(b)/1e6, "MB")
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.Logf("heap %d KB, stacks %d KB, %d goroutines", m.HeapAlloc>>10, m.StackInuse>>10, runtime.NumGoroutine())
		for _, x := range brokers {
			if len(linked(x)) != n-1 {
				b.Errorf("%s is linked with %d", x.Name(), len(linked(x)))
			}
		}
	}
	b.ReportMetric(0, "ns/op")
}

// cpu is what the process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resident is how many bytes it has in memory; 0: the system does not tell.
func resident(b *testing.B) float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var all, here float64
	fmt.Fscan(strings.NewReader(string(text)), &all, &here)
	return here * float64(os.Getpagesize())
}
