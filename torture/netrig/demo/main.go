//go:build linux

// Demo sends a directory from one host to another, with a third one beside them, through a
// cut of two seconds. The hosts are network namespaces of this machine, so it needs root.
//
//	demo ZPIPES DIRECTORY
//
// ZPIPES is the zpipes command.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/zpipes/zpipes/torture/netrig"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: demo ZPIPES DIRECTORY")
		os.Exit(2)
	}
	if err := demo(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

var (
	hosts = []string{"alpha", "beta", "gamma"}
	// wire is like that of a good office network.
	wire = netrig.Conditions{Delay: 500 * time.Microsecond, Rate: 60 << 20, Queue: 1 << 20}
)

// A stage is the hosts, and what runs on them.
type stage struct {
	net    *netrig.Net
	zpipes string
	dir    string
	all    []*exec.Cmd
}

func demo(zpipes, directory string) error {
	zpipes, err := filepath.Abs(zpipes)
	if err != nil {
		return err
	}
	net, err := netrig.New(len(hosts), true)
	if err != nil {
		return fmt.Errorf("%w; it needs root, and /dev/net/tun", err)
	}
	defer net.Close()
	net.All(wire)
	dir, err := os.MkdirTemp("", "zpipes-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &stage{net: net, zpipes: zpipes, dir: dir}
	defer s.end()
	if err := s.setUp(); err != nil {
		return err
	}
	return s.send(directory)
}

// script is a command of the shell on a host, where $ZPIPES is the zpipes command.
func (s *stage) script(host int, text string) *exec.Cmd {
	fmt.Printf("%-6s $ %s\n", hosts[host], strings.ReplaceAll(text, `"$ZPIPES"`, "zpipes"))
	cmd := exec.Command("bash", "-c", "set -o pipefail; "+text)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "ZPIPES="+s.zpipes, "ZPIPES_BROKER="+fmt.Sprintf("demo-%s-%d", hosts[host], os.Getpid()))
	cmd.Stderr = os.Stderr
	s.all = append(s.all, cmd)
	return cmd
}

func (s *stage) setUp() error {
	if err := s.run(0, `"$ZPIPES" key >cluster.key`); err != nil {
		return err
	}
	var all []string
	for i := range hosts {
		all = append(all, s.net.Host(i).Addr.String())
	}
	for i := range hosts {
		cmd := s.script(i, `exec "$ZPIPES" broker --log-level warn --cluster cluster.key --join `+strings.Join(all, ","))
		if err := s.net.Host(i).Start(cmd); err != nil {
			return err
		}
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		cmd := exec.Command(s.zpipes, "cluster", "status")
		cmd.Env = append(os.Environ(), s.all[1].Env[len(s.all[1].Env)-1])
		var out bytes.Buffer
		cmd.Stdout = &out
		err := s.net.Host(0).Start(cmd)
		if err == nil {
			err = cmd.Wait()
		}
		if strings.Count(out.String(), " linked ") == len(hosts)-1 {
			fmt.Printf("%-6s $ zpipes cluster status\n%s", hosts[0], out.String())
			return nil
		}
		if time.Now().After(end) {
			return errors.Join(fmt.Errorf("the brokers have not met: %s", out.String()), err)
		}
	}
}

// run runs a command on a host to its end.
func (s *stage) run(host int, text string) error {
	cmd := s.script(host, text)
	if err := s.net.Host(host).Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// send has the directory read on one host and written on another, and compares the sums.
func (s *stage) send(directory string) error {
	reader := s.script(2, `"$ZPIPES" read archive | sha256sum >read.sum`)
	if err := s.net.Host(2).Start(reader); err != nil {
		return err
	}
	writer := s.script(0, `tar c -C '`+directory+`' . | tee >(sha256sum >written.sum) | "$ZPIPES" write archive`)
	began := time.Now()
	if err := s.net.Host(0).Start(writer); err != nil {
		return err
	}
	cut := wire
	cut.Cut = true
	time.Sleep(time.Second)
	fmt.Println("       the wire between alpha and gamma is cut for two seconds")
	for _, pair := range [][2]int{{0, 2}, {2, 0}} {
		s.net.Lane(pair[0], pair[1]).Set(cut)
	}
	time.Sleep(2 * time.Second)
	before := s.net.Lane(0, 2).Passed()
	for _, pair := range [][2]int{{0, 2}, {2, 0}} {
		s.net.Lane(pair[0], pair[1]).Set(wire)
	}
	if err := errors.Join(writer.Wait(), reader.Wait()); err != nil {
		return err
	}
	took := time.Since(began)
	written, err1 := os.ReadFile(filepath.Join(s.dir, "written.sum"))
	read, err2 := os.ReadFile(filepath.Join(s.dir, "read.sum"))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	fmt.Printf("\n  written  %s  read     %s\n", written, read)
	if !bytes.Equal(written, read) {
		return errors.New("what was read is not what was written")
	}
	after := s.net.Lane(0, 2).Passed() - before
	if after < 1<<20 {
		return errors.New("nothing was left to send after the cut; take a larger directory")
	}
	fmt.Printf("The same to the last byte: %.0f MB in %.1f s, %.0f MB of it after the cut.\n",
		float64(s.net.Lane(0, 2).Passed())/1e6, took.Seconds(), float64(after)/1e6)
	return nil
}

func (s *stage) end() {
	for _, cmd := range s.all {
		if cmd.Process != nil && cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
}
