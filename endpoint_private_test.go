//go:build cgo && linux && !core

package zpipes

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEndpointPrivate(t *testing.T) {
	dir := ownRuntimeDir(t)
	name := uniqueName(t)
	startChild(t, childTask{Part: "broker", Broker: name, Private: true}).ready()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", info.Mode(), err)
	}
	// Somebody else at the usual place.
	if os.Geteuid() == 0 {
		asStranger(t, childTask{Part: "broker", Broker: name}).ready()
	}
	r := &rig{T: t, broker: name}
	r.client = r.newClient(ClientConfig{})
	s, err := r.client.Status(t.Context())
	path := filepath.Join(dir, name)
	want := []string{inprocEndpoint(name), "ipc://" + path, "unix://" + path + ".near"}
	if err != nil || !slices.Equal(s.Endpoints, want) {
		t.Errorf("found a broker at %q (%v), want %q", s.Endpoints, err, want)
	}
	if _, err := (BrokerConfig{Private: true}).NewBroker(name); !errors.Is(err, ErrBrokerExists) {
		t.Errorf("a second one: %v", err)
	}
}

// Where nobody says who connects, as with musl, only the path's permissions can keep
// others out.
func TestEndpointPrivateWhereNobodyIsKnown(t *testing.T) {
	ownRuntimeDir(t)
	tellsPeers = false
	defer func() { tellsPeers = true }()
	if b, err := (BrokerConfig{Endpoints: []string{"ipc://@zpipes-test"}}).NewBroker(""); err == nil {
		b.Close()
		t.Error("it serves everybody")
	}
	b := startBroker(t, BrokerConfig{})
	c, err := NewClient(b.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.OpenReader(t.Context(), "p"); err != nil || !strings.Contains(b.Endpoints()[1], "/zpipes/") {
		t.Errorf("%s: %v", b.Endpoints()[1], err)
	}
}

func TestEndpointPrivateAndOtherUsers(t *testing.T) {
	dir := ownRuntimeDir(t)
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	b := startBroker(t, BrokerConfig{Private: true, AllowUIDs: []int{stranger}})
	c := asStranger(t, childTask{Part: "reader", Broker: b.Endpoints()[1], Pipe: "p"})
	if got := c.line(); !strings.Contains(got, "permission denied") {
		t.Errorf("another user got %q", got)
	}
}

func TestEndpointPrivateDirectoryThatIsNot(t *testing.T) {
	dir := ownRuntimeDir(t)
	for what, make := range map[string]func() error{
		"mode 0755": func() error { return os.Mkdir(dir, 0o755) },
		"a file":    func() error { return os.WriteFile(dir, nil, 0o700) },
		"a link":    func() error { return os.Symlink(t.TempDir(), dir) },
		"another's": func() error {
			if os.Geteuid() != 0 {
				return os.Mkdir(dir, 0o755)
			}
			return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, stranger, stranger))
		},
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if b, err := (BrokerConfig{Private: true}).NewBroker(""); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", what, err)
			b.Close()
		}
		if _, err := privateEndpoint("x"); err == nil {
			t.Errorf("%s: a client would look there", what)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	if got := privateDir(); !strings.HasPrefix(got, os.TempDir()) {
		t.Errorf("without a runtime directory it is %s", got)
	}
}

func TestEndpointPrivateDirectoryOfNobody(t *testing.T) {
	dir := filepath.Dir(ownRuntimeDir(t))
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	c := startChild(t, childTask{Part: "broker", Broker: uniqueName(t), Private: true, UID: stranger, Namespace: true})
	if got := c.line(); !strings.Contains(got, "permission denied") {
		t.Errorf("a directory that may be anybody's: %s", got)
	}
}
