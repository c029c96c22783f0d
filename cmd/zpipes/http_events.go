package main

import (
	"fmt"
	"net/http"
	"time"
)

const (
	// maxViewers is how many browsers may look on at a time.
	maxViewers = 64
	// viewerLag is how many samples a viewer may be behind before it is dropped.
	viewerLag = 4
	// viewerPatience is how long one sample may take to be sent.
	viewerPatience = 5 * time.Second
)

// subscribe returns where samples arrive from now on, in JSON, the latest first,
// or nil if too many look on. It is closed when the viewer is too slow.
func (s *sampler) subscribe() chan []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.viewers) >= maxViewers {
		return nil
	}
	v := make(chan []byte, viewerLag)
	s.viewers[v] = true
	v <- s.frame()
	return v
}

func (s *sampler) unsubscribe(v chan []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.viewers, v)
}

// publish sends the latest sample to all viewers, and waits for none.
func (s *sampler) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v := range s.viewers {
		select {
		case v <- s.frame():
		default:
			delete(s.viewers, v)
			close(v)
		}
	}
}

// events serves samples as server-sent events for as long as the viewer looks on.
func (s *site) events(w http.ResponseWriter, r *http.Request) {
	v := s.sampler.subscribe()
	if v == nil {
		http.Error(w, "too many look on", http.StatusServiceUnavailable)
		return
	}
	defer s.sampler.unsubscribe(v)
	w.Header().Set("Content-Type", "text/event-stream")
	control := unhurried(w)
	for {
		select {
		case frame, ok := <-v:
			if !ok {
				return
			}
			control.SetWriteDeadline(time.Now().Add(s.patience))
			if _, err := fmt.Fprintf(w, "data: %s\n\n", frame); err != nil {
				return
			}
			if control.Flush() != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}
