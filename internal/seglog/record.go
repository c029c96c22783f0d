package seglog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// A Kind says what an Op tells.
type Kind uint8

// Put is told before all others of its job, Done after them.
const (
	Put      Kind = iota + 1 // a job has come: Sent, Due, Text (its key), Body
	Taken                    // a worker has it: Deliveries. Written, but synced only with what follows
	Returned                 // it waits again: Deliveries, Due
	Dead                     // it waits no more, and stays: Deliveries, Text (the reason)
	Done                     // it is gone
	Config                   // the queue's configuration, of at most MaxConfig bytes: Body; Text, the name, is the log's
	Gone                     // a job with the key Text came at Sent, and is gone; told of one that was never here, or carried forward
)

// An Op is what the log is told. Of a job, only what its Kind names is kept.
type Op struct {
	Kind       Kind
	ID         uint64 // of the job; those of Puts ascend
	Sent, Due  int64  // Unix time in nanoseconds; no Due: at once
	Deliveries uint32 // up to 1048575
	Text       string // up to MaxText bytes
	Body       []byte // the log's until it is committed; up to MaxBody
	Lazy       bool   // of a Taken: nobody waits for it, so that it is written with what follows, or a moment later
}

// noID is no job's, so that another one can follow any.
const noID = math.MaxUint64

// What an Op may have at most.
const (
	MaxText   = 255
	MaxConfig = 512
	MaxBody   = 1 << 30
)

// check says why an op can't be written.
func (o *Op) check() error {
	switch {
	case o.Kind < Put || o.Kind > Gone:
		return fmt.Errorf("seglog: there is no operation %d", o.Kind)
	case o.ID == noID:
		return fmt.Errorf("seglog: the id %d, which is none", o.ID)
	case o.Kind == Gone && o.Text == "":
		return fmt.Errorf("seglog: a job that is gone, and had no key")
	case len(o.Text) > MaxText:
		return fmt.Errorf("seglog: a key or reason of %d bytes; it may have %d", len(o.Text), MaxText)
	case o.Kind == Config && len(o.Body) > MaxConfig:
		return fmt.Errorf("seglog: a configuration of %d bytes; it may have %d", len(o.Body), MaxConfig)
	case len(o.Body) > MaxBody:
		return fmt.Errorf("seglog: a job of %d bytes; it may have %d", len(o.Body), MaxBody)
	}
	return nil
}

// The fields a record has, by its kind. The first two may be missing; its first byte says so.
const (
	hasDue = 1 << (iota + 4)
	hasText
	hasSent
	hasDeliveries
	hasBody

	kindMask = 1<<4 - 1
	flagMask = hasDue | hasText
)

var fieldsOf = [...]int{
	Put:      hasSent | hasBody,
	Taken:    hasDeliveries,
	Returned: hasDeliveries,
	Dead:     hasDeliveries,
	Done:     0,
	Config:   hasBody,
	Gone:     hasSent,
}

var optionalOf = [...]int{Put: hasDue | hasText, Returned: hasDue, Dead: hasText, Done: hasText, Config: hasText, Gone: hasText}

func (o *Op) fields() int {
	fields := optionalOf[o.Kind]
	if o.Due == 0 {
		fields &^= hasDue
	}
	if o.Text == "" {
		fields &^= hasText
	}
	return fields | fieldsOf[o.Kind]
}

// A record is an Op as it was read, perhaps without its body.
type record struct {
	Op
	size int // of the body
	head int // of all before it
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var le = binary.LittleEndian

// appendRecord appends an op's bytes; see the package's documentation.
func appendRecord(b []byte, o *Op) []byte {
	start, fields := len(b), o.fields()
	b = append(b, byte(o.Kind)|byte(fields&flagMask))
	b = le.AppendUint64(b, o.ID)
	if fields&hasSent != 0 {
		b = le.AppendUint64(b, uint64(o.Sent))
	}
	if fields&hasDue != 0 {
		b = le.AppendUint64(b, uint64(o.Due))
	}
	if fields&hasDeliveries != 0 {
		b = le.AppendUint32(b, o.Deliveries)
	}
	if fields&hasText != 0 {
		b = append(b, byte(len(o.Text)))
		b = append(b, o.Text...)
	}
	if fields&hasBody != 0 {
		b = le.AppendUint32(b, uint32(len(o.Body)))
		sum := crc32.Update(crc32.Checksum(b[start:], castagnoli), castagnoli, o.Body)
		b = le.AppendUint32(b, sum)
		b = append(b, o.Body...)
	}
	return b
}

// indexed says that an index has the body, too.
func (r *record) indexed() bool { return r.Kind == Config }

// parseRecord reads the record that b begins with, and says how long it is; 0: there is
// none. With bodies set, a job's body follows, and is Body, a part of b; its sum is not looked at.
func parseRecord(b []byte, bodies bool) (r record, n int) {
	c := cursor{b: b}
	first := c.byte()
	r.Kind = Kind(first & kindMask)
	if r.Kind < Put || r.Kind > Gone {
		return r, 0
	}
	fields := int(first) &^ kindMask
	if int(r.Kind) < len(optionalOf) && fields&^optionalOf[r.Kind] != 0 {
		return r, 0
	}
	fields |= fieldsOf[r.Kind]
	r.ID = c.uint64()
	if fields&hasSent != 0 {
		r.Sent = int64(c.uint64())
	}
	if fields&hasDue != 0 {
		r.Due = int64(c.uint64())
	}
	if fields&hasDeliveries != 0 {
		r.Deliveries = c.uint32()
	}
	if fields&hasText != 0 {
		r.Text = string(c.bytes(int(c.byte())))
	}
	if fields&hasBody != 0 {
		size := c.uint32()
		c.uint32()
		if size > MaxBody || size > math.MaxInt32 {
			return r, 0
		}
		r.size = int(size)
	}
	r.head = c.n
	if bodies || r.indexed() {
		r.Body = c.bytes(r.size)
	}
	if c.short || r.ID == noID {
		return r, 0
	}
	return r, c.n
}

// sound says that the record which is b has the body that was written.
func (r *record) sound(b []byte) bool {
	sum := crc32.Update(crc32.Checksum(b[:r.head-4], castagnoli), castagnoli, b[r.head:r.head+r.size])
	return sum == le.Uint32(b[r.head-4:])
}

// A cursor reads fields one after the other.
type cursor struct {
	b     []byte
	n     int
	short bool // there were not enough
}

func (c *cursor) bytes(n int) []byte {
	if n > len(c.b)-c.n {
		c.short = true
		return nil
	}
	c.n += n
	return c.b[c.n-n : c.n : c.n]
}

func (c *cursor) byte() byte {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.bytes(2); b != nil {
		return le.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.bytes(4); b != nil {
		return le.Uint32(b)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if b := c.bytes(8); b != nil {
		return le.Uint64(b)
	}
	return 0
}

// A batch is what one commit writes: this head, and records.
type batch struct {
	length uint32 // of the records
	salt   uint64 // the segment's
	at     uint32 // where the batch begins in it
	synced uint32 // how much of the segment was synced before
	needs  uint32 // how many segments before this one still count
}

const batchHead = 4 + 4 + 8 + 4 + 4 + 4

// seal writes the head of the batch that is b, before its records.
func (h batch) seal(b []byte) {
	le.PutUint32(b[4:], uint32(len(b)-batchHead))
	le.PutUint64(b[8:], h.salt)
	le.PutUint32(b[16:], h.at)
	le.PutUint32(b[20:], h.synced)
	le.PutUint32(b[24:], h.needs)
	le.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
}

// parseBatch reads a batch's head, and says whether it can be one at this place.
func parseBatch(b []byte, salt uint64, at int64) (h batch, ok bool) {
	h = batch{le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint32(b[16:]), le.Uint32(b[20:]), le.Uint32(b[24:])}
	return h, h.salt == salt && int64(h.at) == at && h.synced <= h.at
}

// sound says that b, a whole batch, is as it was written.
func soundBatch(b []byte) bool { return le.Uint32(b) == crc32.Checksum(b[4:], castagnoli) }

// A header is what a segment begins with.
type header struct {
	number      uint32 // of the segment
	previous    uint32 // how long the segment before it is
	needs       uint32 // as in batch
	salt        uint64 // random
	incarnation uint64 // the queue's
	nextID      uint64 // larger than that of any job put before
	name        string
	config      []byte
}

const (
	headerSize  = 1024
	headerMagic = "zplog\x00\x00\x01"
	maxName     = 255
)

func (h *header) encode() []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, headerMagic...)
	b = le.AppendUint32(b, h.number)
	b = le.AppendUint32(b, h.previous)
	b = le.AppendUint32(b, h.needs)
	b = le.AppendUint64(b, h.salt)
	b = le.AppendUint64(b, h.incarnation)
	b = le.AppendUint64(b, h.nextID)
	b = le.AppendUint16(b, uint16(len(h.name)))
	b = append(b, h.name...)
	b = le.AppendUint16(b, uint16(len(h.config)))
	b = append(b, h.config...)
	b = b[:headerSize]
	sealHeader(b)
	return b
}

func sealHeader(b []byte) {
	le.PutUint32(b[headerSize-4:], crc32.Checksum(b[:headerSize-4], castagnoli))
}

func parseHeader(b []byte) (h header, ok bool) {
	if len(b) != headerSize || string(b[:8]) != headerMagic ||
		le.Uint32(b[headerSize-4:]) != crc32.Checksum(b[:headerSize-4], castagnoli) {
		return h, false
	}
	c := cursor{b: b[:headerSize-4], n: 8}
	h = header{number: c.uint32(), previous: c.uint32(), needs: c.uint32(), salt: c.uint64(), incarnation: c.uint64(),
		nextID: c.uint64()}
	h.name = string(c.bytes(int(c.uint16())))
	h.config = append([]byte(nil), c.bytes(int(c.uint16()))...)
	return h, !c.short
}
