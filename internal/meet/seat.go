package meet

// A Seat is the writer's place at a reader. Its broker has the last word on who takes it.
type Seat struct {
	Reader Token // 0: it is not open
	Writer Token // 0: nobody sits there
	At     Member
	Local  bool // one of its own broker's does
}

// Admit says whether that writer may attach to that reader, and whether it is there already,
// and only comes by another way.
func (s *Seat) Admit(reader, writer Token, at Member) (ok, again bool) {
	switch {
	case reader == 0 || reader != s.Reader || writer == 0 || s.Local:
		return false, false
	case s.Writer == 0:
		s.Writer, s.At = writer, at
		return true, false
	}
	again = s.Writer == writer && s.At == at
	return again, again
}

// Leave frees it.
func (s *Seat) Leave() { s.Writer, s.At = 0, 0 }
