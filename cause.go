package zpipes

import (
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"unicode/utf8"
)

// causeCode says why an end is over or an open was refused. The numbers are the
// wire's; a new one goes to the end.
type causeCode byte

const (
	causeClosed      causeCode = 0  // an orderly end
	causeAborted     causeCode = 1  // CloseWithError; the text is the error's
	causeVanished    causeCode = 2  // the process died or broke the protocol
	causeUndelivered causeCode = 3  // the writer gave up on what nobody took
	causeBrokerGone  causeCode = 4  // the broker closes, or has dropped this end
	causeBusy        causeCode = 5  // open: there is such an end already
	causeMode        causeCode = 6  // open: the name is of another kind of pipe
	causeBadName     causeCode = 7  // open: no pipe can have that name
	causeTooMany     causeCode = 8  // open: the broker has as many as it may
	causeDeleted     causeCode = 9  // the queue was deleted
	causeNoQueue     causeCode = 10 // delete: there is no such queue
	causeDenied      causeCode = 11 // the client may not do that
	causeNever       causeCode = 12 // the open of this end has failed: it was never there
	causeNoListener  causeCode = 16 // dial: nobody listens there
	causeTooSlow     causeCode = 18 // the reader of a broadcast has missed bytes; the text begins with how many
	causeUnreachable causeCode = 24 // the broker of the other end can't be reached
	causeConflict    causeCode = 25 // there is another such end, at another broker
	causeElsewhere   causeCode = 26 // between brokers: what was forwarded is not there any more
)

// errNotHere is causeElsewhere's.
var errNotHere = fmt.Errorf("%w: the queue has another home", ErrBrokerGone)

// errDeleted is causeDeleted's, to one who has just come.
var errDeleted = fmt.Errorf("%w: the queue was deleted", fs.ErrNotExist)

type cause struct {
	code causeCode
	text string
}

// shortText is what of a text there is room for in a message, in whole runes.
func shortText(text string) string {
	if len(text) <= maxString {
		return text
	}
	cut := maxString
	for cut > maxString-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut]
}

// readError is what a reader meets behind the last byte of a writer that left
// with this cause.
func (c cause) readError() error {
	switch c.code {
	case causeClosed:
		return io.EOF
	case causeBrokerGone:
		return c.explain(ErrBrokerGone)
	case causeDeleted:
		return cause{text: "the queue was deleted"}.explain(io.ErrUnexpectedEOF)
	case causeConflict:
		return c.explain(ErrPipeBusy)
	case causeVanished:
		return cause{text: "the writer vanished"}.explain(io.ErrUnexpectedEOF)
	case causeUndelivered:
		return cause{text: "the writer gave up before all was delivered"}.explain(io.ErrUnexpectedEOF)
	case causeTooSlow:
		digits, _, _ := strings.Cut(c.text, " ")
		n, _ := strconv.ParseInt(digits, 10, 64)
		return &MissedError{Bytes: max(0, n), Err: ErrTooSlow}
	}
	return c.explain(io.ErrUnexpectedEOF)
}

// writeError is what a writer meets once the reader left with this cause.
func (c cause) writeError() error {
	switch c.code {
	case causeClosed:
		return io.ErrClosedPipe
	case causeBrokerGone:
		return c.explain(ErrBrokerGone)
	case causeDeleted:
		return cause{text: "the queue was deleted"}.explain(io.ErrClosedPipe)
	case causeConflict:
		return c.explain(ErrPipeBusy)
	case causeVanished:
		return cause{text: "the reader vanished"}.explain(io.ErrClosedPipe)
	}
	return c.explain(io.ErrClosedPipe)
}

// openError is why an open was refused.
func (c cause) openError() error {
	switch c.code {
	case causeMode:
		return c.explain(ErrPipeMode)
	case causeBadName:
		return c.explain(ErrBadName)
	case causeTooMany:
		return c.explain(ErrTooManyPipes)
	case causeDenied:
		return c.explain(fs.ErrPermission)
	case causeNoQueue:
		return cause{text: "no such queue"}.explain(fs.ErrNotExist)
	case causeDeleted:
		return errDeleted
	case causeBrokerGone, causeUnreachable:
		return c.explain(ErrBrokerGone)
	case causeElsewhere:
		return errNotHere
	case causeNoListener:
		return ErrNoListener
	}
	return c.explain(ErrPipeBusy)
}

func (c cause) explain(err error) error {
	if c.text == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, c.text)
}

// why is the cause that a message tells.
func (m *message) why() cause { return cause{m.code, string(m.cause)} }
