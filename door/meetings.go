package door

import (
	"fmt"
	"mime"
	"net/http"
	"strings"
	"sync"

	"github.com/zpipes/zpipes"
)

// plainType is the type of what nobody has said the type of.
const plainType = "application/octet-stream"

// meetings are where requests of one name meet, so that the type of what is written
// reaches who reads it. A broker knows nothing of types.
type meetings struct {
	mu      sync.Mutex // guards what follows, and all of each stream
	streams map[string]*stream
}

// A stream is one pipe of a name, seen from here.
type stream struct {
	of      *meetings
	here    int    // requests that are its ends, or may become that
	written bool   // there is its writer, or was
	said    string // its type
	many    bool   // it is a broadcast, so that readers come and go
}

// meet joins the stream of that name, which has begun or is to begin.
func (m *meetings) meet(name string) *stream {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.join(name)
}

func (m *meetings) join(name string) *stream {
	s := m.streams[name]
	if s == nil {
		s = &stream{of: m, said: plainType}
		m.streams[name] = s
	}
	s.here++
	return s
}

// bring joins it as the writer, of which there is one.
func (m *meetings) bring(name string) (*stream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.streams[name]; s != nil && s.written {
		return nil, fmt.Errorf("open writer %q: %w: it has a writer already", name, zpipes.ErrPipeBusy)
	}
	s := m.join(name)
	s.written = true
	return s, nil
}

// part leaves a stream as an end of it, for which there is no place any more: who comes
// next begins another stream, except as a reader of a broadcast.
func (m *meetings) part(name string, s *stream, writer bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.streams[name] == s && (writer || !s.many) {
		delete(m.streams, name)
	}
}

// decline leaves a stream that the request has not become an end of.
func (m *meetings) decline(name string, s *stream, writer bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if writer {
		s.written = false
	}
	if s.here--; s.here == 0 && m.streams[name] == s {
		delete(m.streams, name)
	}
}

// say tells the type before the first byte is written, and whether it is a broadcast.
func (s *stream) say(kind string, many bool) {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.said, s.many = kind, many
}

func (s *stream) kind() string {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	return s.said
}

func (m *meetings) typeOf(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.streams[name]; s != nil {
		return s.said
	}
	return plainType
}

// kindOf is the type that travels with a body. What browsers would run does not: to them
// it is bytes. Nor does what curl says where nobody has said anything.
func kindOf(header http.Header) string {
	given := header.Get("Content-Type")
	kind, _, err := mime.ParseMediaType(given)
	switch {
	case err != nil || len(given) > 255 || strings.ContainsFunc(given, unfit) || !strings.Contains(kind, "/") || kind == "application/x-www-form-urlencoded" || strings.HasPrefix(kind, "multipart/"):
		return plainType
	}
	for _, runs := range []string{"html", "xml", "script"} {
		if strings.Contains(kind, runs) {
			return plainType
		}
	}
	return given
}

// unfit says that a header has no place for the character: a terminal may obey it.
func unfit(r rune) bool { return r < ' ' || r >= 0x7f }
