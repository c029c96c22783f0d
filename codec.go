package zpipes

import (
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// A message is one frame: the signature, an id, the fields of that id, and,
// between two sides that have agreed on it, the extension block (see
// docs/PROTOCOL.md):
//
//	message   = %xAA %xA0 id fields [block]
//	block     = "ZP" channel(4) extras
//	string    = length(1) bytes
//	chunk     = length(4) bytes
//
// All numbers are unsigned, in network byte order.
const (
	signature   = "\xaa\xa0"
	blockMagic  = "ZP"
	ableMagic   = "ZA" // before the abilities, which not everybody sends
	beginsMagic = "ZB" // before where Writes begin
	maxString   = 255
	headerBytes = len(signature) + 1

	// chunkOffset is where a chunk's bytes begin, in WRITE as in READ_OK. That
	// it is the same in both lets the broker turn one into the other in place.
	chunkOffset = headerBytes + 4
	blockBytes  = len(blockMagic) + 4
	// tailBytes is what may follow the chunk: WRITE's timeout and the block.
	tailBytes = 4 + blockBytes
	// messageOverhead is more than any message has beside a chunk, and than
	// libzmq's handshake needs.
	messageOverhead = 1024
)

type messageID byte

const (
	msgInput        messageID = 1  // pipename; mode
	msgInputOK      messageID = 2  // ; mode
	msgInputFailed  messageID = 3  // reason; cause
	msgOutput       messageID = 4  // pipename; [broadcast]
	msgOutputOK     messageID = 5  //
	msgOutputFailed messageID = 6  // reason; cause
	msgRead         messageID = 7  // size, timeout; flags, count
	msgReadOK       messageID = 8  // chunk
	msgReadEnd      messageID = 9  //
	msgReadTimeout  messageID = 10 //
	msgReadFailed   messageID = 11 // reason; cause
	msgWrite        messageID = 12 // chunk, timeout; begins
	msgWriteOK      messageID = 13 // ; count
	msgWriteTimeout messageID = 14 //
	msgWriteFailed  messageID = 15 // reason; cause
	msgClose        messageID = 16 // ; cause, count
	msgCloseOK      messageID = 17 //
	msgCloseFailed  messageID = 18 // reason
	msgPing         messageID = 19 // ; version, session, heartbeat, abilities
	msgPingOK       messageID = 20 // ; version, session, window, pending, total, abilities
	msgInvalid      messageID = 21 // ; cause

	// Between two that have both said ableRings:
	msgOffer messageID = 22 // size; count; a ring and a bell come with it
	msgMove  messageID = 23 // ; move, count
	msgMoved messageID = 24 // ; move, count

	// Between two that have both said ableConnections:
	msgDial         messageID = 25 // name; count
	msgDialOK       messageID = 26 // ; who
	msgDialFailed   messageID = 27 // reason; cause
	msgAccept       messageID = 28 // size; count
	msgAcceptOK     messageID = 29 // ; who
	msgAcceptFailed messageID = 30 // reason; cause
	msgAccepted     messageID = 31 // ; who
	// Between two that have both said ableJobs, on the channel of a Queue:
	msgTake        messageID = 32 // ; count
	msgJob         messageID = 33 // chunk; job
	msgSettle      messageID = 34 // reason; mode, count, job
	msgSettled     messageID = 35 // ; count
	msgLost        messageID = 36 // ; mode, job
	msgRules       messageID = 37 // ; rules
	msgRulesOK     messageID = 38 //
	msgRulesFailed messageID = 39 // reason; cause
	msgPut         messageID = 40 // chunk; count, key
	msgTend        messageID = 41 // ; mode
	msgTended      messageID = 42 // ; count
	msgHand        messageID = 71 // chunk; cause, mode, count, job, key; between brokers
	// And between two that have both said ableLots, several at once:
	msgJobs messageID = 43 // chunk; token
	msgDone messageID = 44 // chunk; token

	// Between brokers of a cluster, on the control connection, about ends (see internal/meet):
	msgRegister   messageID = 56 // pipename; flags, token
	msgUnregister messageID = 57 // pipename; flags, token
	msgMatch      messageID = 58 // pipename; token, other, at
	msgConflict   messageID = 59 // pipename; flags, token, at
	// And on one for data:
	msgAttach messageID = 60 // pipename; token, other
	msgTaken  messageID = 61 // ; count, token
	// And the first ones on a connection:
	msgLink   messageID = 62 // name; mode, fellow
	msgLinkOK messageID = 63 // name; fellow
	// On the control connection between two that have both said ableDirectory, to who seeks something:
	msgFound messageID = 64 // pipename; flags, token, other, at
	msgGone  messageID = 65 // pipename; flags, token, other
	// On one for data between two that have both said ableFeeds, about a broadcast:
	msgFeed     messageID = 72 // pipename; broadcast, token, other
	msgAudience messageID = 73 // ; count
	msgHeld     messageID = 74 // ; token

	// Between brokers again, on one for data: a connection is dialled.
	msgCall       messageID = 67 // name; token, other
	msgCalled     messageID = 68 //
	msgCallFailed messageID = 69 // reason; cause

	// And between two that have both said ableText: a command by text, whose queue is there.
	msgText       messageID = 75 // chunk; mode
	msgTextAnswer messageID = 76 // chunk; cause
)

// What a message carries, in the order in which it stands in the frame: fields
// first, then the extras of the extension block.
const (
	hasText = 1 << iota
	hasSize
	hasChunk
	hasTimeout
	hasFlags
	hasCause
	hasHello
	hasPending
	hasMode
	hasCount
	hasWho
	hasJob
	hasRules
	hasKey
	hasBroadcast
	hasBegins
	hasFellow
	hasToken
	hasOther
	hasAt

	isMessage = 1 << 31
)

var layouts = [...]uint32{
	msgInput:        hasText | hasMode,
	msgInputOK:      hasMode,
	msgInputFailed:  hasText | hasCause,
	msgOutput:       hasText | hasBroadcast,
	msgOutputOK:     isMessage,
	msgOutputFailed: hasText | hasCause,
	msgRead:         hasSize | hasTimeout | hasFlags | hasCount,
	msgReadOK:       hasChunk,
	msgReadEnd:      isMessage,
	msgReadTimeout:  isMessage,
	msgReadFailed:   hasText | hasCause,
	msgWrite:        hasChunk | hasTimeout | hasBegins,
	msgWriteOK:      hasCount,
	msgWriteTimeout: isMessage,
	msgWriteFailed:  hasText | hasCause,
	msgClose:        hasCause | hasCount,
	msgCloseOK:      isMessage,
	msgCloseFailed:  hasText,
	msgPing:         hasHello,
	msgPingOK:       hasHello | hasPending,
	msgInvalid:      hasCause,
	msgOffer:        hasSize | hasCount,
	msgMove:         hasMode | hasCount,
	msgMoved:        hasMode | hasCount,
	msgDial:         hasText | hasCount,
	msgDialOK:       hasWho,
	msgDialFailed:   hasText | hasCause,
	msgAccept:       hasSize | hasCount,
	msgAcceptOK:     hasWho,
	msgAcceptFailed: hasText | hasCause,
	msgAccepted:     hasWho,
	msgTake:         hasCount,
	msgJob:          hasChunk | hasJob,
	msgSettle:       hasText | hasMode | hasCount | hasJob,
	msgSettled:      hasCount,
	msgLost:         hasMode | hasJob,
	msgRules:        hasRules,
	msgRulesOK:      isMessage,
	msgRulesFailed:  hasText | hasCause,
	msgPut:          hasChunk | hasCount | hasKey,
	msgTend:         hasMode,
	msgTended:       hasCount,
	msgJobs:         hasChunk | hasToken,
	msgDone:         hasChunk | hasToken,
	msgHand:         hasChunk | hasCause | hasMode | hasCount | hasJob | hasKey,
	msgRegister:     hasText | hasFlags | hasToken,
	msgUnregister:   hasText | hasFlags | hasToken,
	msgMatch:        hasText | hasToken | hasOther | hasAt,
	msgConflict:     hasText | hasFlags | hasToken | hasAt,
	msgAttach:       hasText | hasToken | hasOther,
	msgTaken:        hasCount | hasToken,
	msgLink:         hasText | hasMode | hasFellow,
	msgLinkOK:       hasText | hasFellow,
	msgFound:        hasText | hasFlags | hasToken | hasOther | hasAt,
	msgGone:         hasText | hasFlags | hasToken | hasOther,
	msgFeed:         hasText | hasBroadcast | hasToken | hasOther,
	msgAudience:     hasCount,
	msgHeld:         hasToken,
	msgCall:         hasText | hasToken | hasOther,
	msgCalled:       isMessage,
	msgCallFailed:   hasText | hasCause,
	msgText:         hasChunk | hasMode,
	msgTextAnswer:   hasChunk | hasCause,
}

// Flags of READ, in the extension block.
const (
	readAny    = 1 << 0 // answer as soon as there is one byte
	readStream = 1 << 1 // go on answering until size bytes have been sent
	readReturn = 1 << 2 // on a queue: what was sent and is not counted goes back
	readHere   = 1 << 3 // asks for nothing: the open of the end has returned
)

// Modes of INPUT and INPUT_OK, in the extension block.
const (
	modeStream    = 0  // INPUT: the reader of a stream, or of a queue's bytes
	modeQueue     = 1  // whole chunks, in both directions
	modeDelete    = 2  // INPUT: nothing is opened, the queue of that name is deleted
	modeStatus    = 3  // INPUT: the reader of what the broker says of itself
	modeLeave     = 4  // INPUT: nothing is opened, the broker leaves its cluster
	modePeek      = 9  // INPUT: the reader of what the broker says of a queue's jobs
	modeKnown     = 10 // INPUT: modeQueue, if there is a queue of that name
	modeResigned  = 11 // INPUT, between brokers: modeQueue, by its home that ends
	modeListen    = 5  // one who listens for connections
	modeBroadcast = 7  // OUTPUT: the writer of a broadcast
)

// protocolVersion is the extension's; the lower of both sides' counts.
const protocolVersion = 1

// Abilities are what the extension has got since. What both sides have named is used.
const (
	// ableHere: the client says of each end, with a READ, that its open has returned.
	// Until then the end can be taken back as if it had never been there.
	ableHere = 1 << 0
	// ableRings: a stream's bytes can go through memory that both ends share.
	ableRings = 1 << 1
	// ableConnections: there are listeners, and connections can be dialled.
	ableConnections = 1 << 2
	// ableJobs: chunks of queues can be taken, and settled later.
	ableJobs = 1 << 3
	// ableBroadcast: a writer can open a broadcast.
	ableBroadcast = 1 << 4
	// ablePeers: a client is a broker of the cluster, and attaches writers of its own clients'.
	ablePeers = 1 << 5
	// ableDirectory: a broker tells others of its cluster where there are things, and asks them.
	ableDirectory = 1 << 6
	// ableFeeds: such a client attaches writers of broadcasts, too.
	ableFeeds = 1 << 7

	// ableRoom: a client may have as many bytes of a stream unanswered as WRITE_OK has said that
	// there is room for.
	ableRoom = 1 << 8
	// ableStrands: a connection for data may be several. It is said in LINK and LINK_OK alone.
	ableStrands = 1 << 9
	// ableText: such a client passes commands by text on.
	ableText = 1 << 10
	// ableBeats: that a broker lives need not be answered. Likewise.
	ableBeats = 1 << 11

	// ableDraws: the writer of a broadcast can have a ring, too, and marks in it where Writes begin.
	ableDraws = 1 << 12
	// ableDelays: delays of jobs can be of years; see wireDelay.
	ableDelays = 1 << 13
	// ableLots: jobs can come, and be done, several in a message.
	ableLots = 1 << 14

	abilities = ableHere | ableRings | ableConnections | ableJobs | ableBroadcast | ableRoom | ableDraws | ableDelays | ableLots
	// linkAbilities are those of LINK and LINK_OK.
	linkAbilities = abilities | ableDirectory | ableStrands | ableBeats
	// peerAbilities are those that only brokers of a cluster have as clients.
	peerAbilities = ablePeers | ableFeeds | ableText
)

// Flags of REGISTER, UNREGISTER, CONFLICT, FOUND and GONE, in the extension block.
const (
	endWriter   = 1 << 0 // the end is a writer
	endMatched  = 1 << 1 // and not alone
	endMany     = 1 << 2 // it is a broadcast's writer, which takes all readers
	thingSought = 1 << 2 // it is no end, but a thing, and is sought (else offered)
	thingOver   = 1 << 3 // in UNREGISTER and GONE: it is no more
	thingShift  = 4      // the flags beyond are a thing
)

// Modes of LINK, in the extension block.
const (
	linkControl = 1 // records and heartbeats follow
	linkBulk    = 2 // the conversation of a client with a broker follows
	linkTold    = 3 // on a control connection: about another broker
	linkStrand  = 4 // a part of a connection for data
)

// Modes of MOVE and MOVED, in the extension block.
const (
	moveInto = 1 // the stream goes on in the ring
	moveOut  = 2 // or here, behind the ring's byte number count
	moveNot  = 3 // MOVE: the client has no use for what was offered
)

// Modes of TEXT, in the extension block.
const (
	textAsks      = 0
	textInterrupt = 1 // no command: the READs and TAKEs that wait on that queue are to be answered
)

type blockState byte

const (
	noBlock  blockState = iota
	badBlock            // the channel can be read, what follows cannot
	hasBlock
)

// message is any of the messages. A parsed one points into its frame.
type message struct {
	id      messageID
	block   blockState
	flags   byte      // READ, and records
	code    causeCode // why an end is over, or an open was refused
	mode    byte      // INPUT, INPUT_OK, OUTPUT, MOVE, MOVED; SETTLE: an actKind; LOST: 1 answers a SETTLE; TEND: a tending
	lent    bool      // see body
	size    uint32    // READ; ACCEPT: the listener's channel
	timeout uint32    // READ, WRITE; milliseconds, 0: for ever
	channel uint32
	// count is in WRITE_OK and TAKEN how many bytes more the pipe takes at once, or how many
	// chunks the queue has taken; in READ on a queue how many chunks the receiver
	// has got; in CLOSE how many bytes of the last READ_OK go back to a queue; in OFFER
	// how many bytes a pipe holds before writes wait; in MOVE and
	// MOVED out of a ring how many bytes have gone through it, as far as 32 bits tell; and
	// in MOVED into one how many bytes are still before it; in DIAL and ACCEPT the channel of
	// the writing end. In TAKE it is how many jobs the channel wants in all, those included
	// that it has got (the lower 32 bits); in SETTLE and PUT a delay in milliseconds, in
	// SETTLED how many SETTLEs are confirmed, in TENDED how many jobs were concerned. In AUDIENCE
	// it is how many readers there are.
	count uint32

	text   []byte     // pipe name of INPUT, OUTPUT, DIAL, and of what brokers say of ends; broker's of LINK, reason of *_FAILED and SETTLE, key of PUT
	chunk  []byte     // WRITE, READ_OK
	cause  []byte     // the text that belongs to code
	hello  hello      // PING, PING_OK
	job    wireJob    // JOB, SETTLE, LOST
	rules  wireRules  // RULES
	fellow wireFellow // LINK, LINK_OK
	// token is an end of a stream, in MATCH, ATTACH and FEED the writer; other is the reader there,
	// and at where it is, or in CONFLICT who stays; in CALL they are the writers of both directions. In FOUND
	// and GONE token is the one who seeks, and other the offer. In TAKEN token is how many bytes were taken since
	// the stream began, and in HELD how many are to be before the writer can go on. In JOBS and DONE it is the queue's incarnation.
	token, other uint64
	at           memberID

	who    wireWho         // DIAL_OK, ACCEPT_OK, ACCEPTED: the process at the other end
	cast   broadcastConfig // OUTPUT with modeBroadcast, FEED
	begins []byte          // WRITE to a broadcast: where Writes do, see marks.cut

	descriptors []int // that came with an OFFER; the receiver's

	// How the frame is kept that a received one points into. With lent, it is somebody
	// else's again once the message has been handled; body has it, and is released or kept.
	// With neither, it is nobody else's.
	body *segment
}

// own returns a chunk of the frame that is safe to keep: one that does not keep much else
// alive.
func (m *message) own(chunk, frame []byte) []byte {
	if m.lent || len(chunk) < m.backing(frame)/2 || len(chunk) == 0 {
		return append(make([]byte, 0, len(chunk)), chunk...)
	}
	m.body = nil
	return chunk
}

// backing is how much memory the frame keeps.
func (m *message) backing(frame []byte) int {
	if m.body != nil {
		return len(m.body.buf)
	}
	return len(frame)
}

// hello is the capability block of PING and PING_OK.
type hello struct {
	version byte
	session uint64 // 0 in a client's first PING; the broker chooses it
	// number is in PING the client's heartbeat interval in milliseconds, in
	// PING_OK how many bytes a channel may have in unanswered WRITEs.
	number  uint32
	pending uint32 // PING_OK: how many bytes a pipe holds before WRITEs wait
	total   uint32 // PING_OK: how many bytes all channels may have in unanswered WRITEs
	able    uint32 // abilities; 0, and left out, by who knows of none
	window  uint32 // PING, with ableRings: how many bytes of a stream the client may have unconfirmed
}

// A wireJob says which delivery of which job is meant, and in JOB when the job was sent.
type wireJob struct {
	incarnation, id uint64
	delivery        uint32
	sent            int64 // Unix time in nanoseconds
}

// wireRules are what a queue is to be; zero ones are left as they are.
type wireRules struct {
	durable       byte   // 1: it is to be
	lease         uint32 // milliseconds
	maxDeliveries uint32
	maxBytes      uint64
}

// A wireWho is what is told of a process: its UID, GID and PID; -1: that is not known.
type wireWho [3]int

func whoOf(a Access) wireWho { return wireWho{a.UID, a.GID, a.PID} }

func (w wireWho) access() Access { return Access{UID: w[0], GID: w[1], PID: w[2]} }

// A wireFellow says which broker of a cluster speaks, or is spoken of.
type wireFellow struct {
	id, expects memberID // expects: to whom LINK is addressed; 0: to whoever is there
	able        uint32
	address     []byte // HOST:PORT at which it is reached, or :PORT at the address from which it comes
}

// size is a number of bytes that the peer has told, as far as it is one here.
func size(told uint32) int { return int(min(told, math.MaxInt32)) }

var (
	errSignature = errors.New("no ZPIPES signature")
	errUnknownID = errors.New("unknown message id")
	errShort     = errors.New("message ends before its last field")
)

// append writes the message behind b. text and cause beyond 255 bytes are cut.
func (m *message) append(b []byte) []byte {
	layout := layouts[m.id]
	b = append(b, signature...)
	b = append(b, byte(m.id))
	if layout&hasText != 0 {
		b = appendString(b, m.text)
	}
	if layout&hasSize != 0 {
		b = binary.BigEndian.AppendUint32(b, m.size)
	}
	if layout&hasChunk != 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(len(m.chunk)))
		b = append(b, m.chunk...)
	}
	if layout&hasTimeout != 0 {
		b = binary.BigEndian.AppendUint32(b, m.timeout)
	}
	if m.block == noBlock {
		return b
	}
	b = appendBlock(b, m.channel)
	if layout&hasFlags != 0 {
		b = append(b, m.flags)
	}
	if layout&hasCause != 0 {
		b = append(b, byte(m.code))
		b = appendString(b, m.cause)
	}
	if layout&hasHello != 0 {
		b = append(b, m.hello.version)
		b = binary.BigEndian.AppendUint64(b, m.hello.session)
		b = binary.BigEndian.AppendUint32(b, m.hello.number)
	}
	if layout&hasPending != 0 {
		b = binary.BigEndian.AppendUint32(b, m.hello.pending)
		b = binary.BigEndian.AppendUint32(b, m.hello.total)
	}
	if layout&hasHello != 0 && m.hello.able != 0 {
		b = append(b, ableMagic...)
		b = binary.BigEndian.AppendUint32(b, m.hello.able)
		if m.id == msgPing && m.hello.able&ableRings != 0 {
			b = binary.BigEndian.AppendUint32(b, m.hello.window)
		}
	}
	if layout&hasMode != 0 {
		b = append(b, m.mode)
	}
	if layout&hasCount != 0 {
		b = binary.BigEndian.AppendUint32(b, m.count)
	}
	if layout&hasWho != 0 {
		for _, id := range m.who {
			b = binary.BigEndian.AppendUint32(b, uint32(id))
		}
	}
	if layout&hasJob != 0 {
		b = binary.BigEndian.AppendUint64(b, m.job.incarnation)
		b = binary.BigEndian.AppendUint64(b, m.job.id)
		b = binary.BigEndian.AppendUint32(b, m.job.delivery)
		b = binary.BigEndian.AppendUint64(b, uint64(m.job.sent))
	}
	if layout&hasRules != 0 {
		b = append(b, m.rules.durable)
		b = binary.BigEndian.AppendUint32(b, m.rules.lease)
		b = binary.BigEndian.AppendUint32(b, m.rules.maxDeliveries)
		b = binary.BigEndian.AppendUint64(b, m.rules.maxBytes)
	}
	if layout&hasKey != 0 {
		b = appendString(b, m.text)
	}
	if layout&hasBroadcast != 0 && m.mode == modeBroadcast {
		b = append(b, m.mode)
		b = binary.BigEndian.AppendUint32(b, uint32(m.cast.keep))
		b = binary.BigEndian.AppendUint32(b, uint32(m.cast.await))
		b = binary.BigEndian.AppendUint32(b, uint32(m.cast.patience/time.Millisecond))
	}
	if layout&hasBegins != 0 {
		b = appendBegins(b, m.begins)
	}
	if layout&hasToken != 0 {
		b = binary.BigEndian.AppendUint64(b, m.token)
	}
	if layout&hasOther != 0 {
		b = binary.BigEndian.AppendUint64(b, m.other)
	}
	if layout&hasAt != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(m.at))
	}
	if layout&hasFellow != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(m.fellow.id))
		b = binary.BigEndian.AppendUint64(b, uint64(m.fellow.expects))
		b = binary.BigEndian.AppendUint32(b, m.fellow.able)
		b = appendString(b, m.fellow.address)
	}
	return b
}

func appendBlock(b []byte, channel uint32) []byte {
	b = append(b, blockMagic...)
	return binary.BigEndian.AppendUint32(b, channel)
}

func appendBegins(b, begins []byte) []byte {
	if len(begins) == 0 {
		return b
	}
	b = append(b, beginsMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(begins)))
	return append(b, begins...)
}

func appendString(b, s []byte) []byte {
	s = s[:min(len(s), maxString)]
	b = append(b, byte(len(s)))
	return append(b, s...)
}

// parse reads a frame without copying: what the message points to is the
// frame's. Bytes after the last field that are no extension block are ignored.
func parse(frame []byte) (message, error) {
	var m message
	if len(frame) < headerBytes || string(frame[:2]) != signature {
		return m, errSignature
	}
	m.id = messageID(frame[2])
	if int(m.id) >= len(layouts) || layouts[m.id] == 0 {
		return m, errUnknownID
	}
	layout := layouts[m.id]
	f := fields{rest: frame[headerBytes:]}
	if layout&hasText != 0 {
		m.text = f.bytes(uint32(f.uint8()))
	}
	if layout&hasSize != 0 {
		m.size = f.uint32()
	}
	if layout&hasChunk != 0 {
		m.chunk = f.bytes(f.uint32())
	}
	if layout&hasTimeout != 0 {
		m.timeout = f.uint32()
	}
	if f.short {
		return m, errShort
	}
	if len(f.rest) < blockBytes || string(f.rest[:2]) != blockMagic {
		return m, nil
	}
	f.rest = f.rest[len(blockMagic):]
	m.channel = f.uint32()
	if layout&hasFlags != 0 {
		m.flags = f.uint8()
	}
	if layout&hasCause != 0 {
		m.code = causeCode(f.uint8())
		m.cause = f.bytes(uint32(f.uint8()))
	}
	if layout&hasHello != 0 {
		m.hello.version = f.uint8()
		m.hello.session = f.uint64()
		m.hello.number = f.uint32()
	}
	if layout&hasPending != 0 {
		m.hello.pending = f.uint32()
		m.hello.total = f.uint32()
	}
	if layout&hasHello != 0 && len(f.rest) >= len(ableMagic)+4 && string(f.rest[:len(ableMagic)]) == ableMagic {
		f.rest = f.rest[len(ableMagic):]
		m.hello.able = f.uint32()
		if m.id == msgPing && m.hello.able&ableRings != 0 {
			m.hello.window = f.uint32()
		}
	}
	if layout&hasMode != 0 {
		m.mode = f.uint8()
	}
	if layout&hasCount != 0 {
		m.count = f.uint32()
	}
	if layout&hasWho != 0 {
		for i := range m.who {
			m.who[i] = whoseID(f.uint32())
		}
	}
	if layout&hasJob != 0 {
		m.job = wireJob{f.uint64(), f.uint64(), f.uint32(), int64(f.uint64())}
	}
	if layout&hasRules != 0 {
		m.rules = wireRules{f.uint8(), f.uint32(), f.uint32(), f.uint64()}
	}
	if layout&hasKey != 0 {
		m.text = f.bytes(uint32(f.uint8()))
	}
	if layout&hasBroadcast != 0 && len(f.rest) > 0 && f.rest[0] == modeBroadcast {
		m.mode = f.uint8()
		m.cast = broadcastConfig{keep: size(f.uint32()), await: size(f.uint32())}
		m.cast.patience = time.Duration(f.uint32()) * time.Millisecond
	}
	if layout&hasBegins != 0 && len(f.rest) >= len(beginsMagic) && string(f.rest[:len(beginsMagic)]) == beginsMagic {
		f.rest = f.rest[len(beginsMagic):]
		m.begins = f.bytes(f.uint32())
	}
	if layout&hasToken != 0 {
		m.token = f.uint64()
	}
	if layout&hasOther != 0 {
		m.other = f.uint64()
	}
	if layout&hasAt != 0 {
		m.at = memberID(f.uint64())
	}
	if layout&hasFellow != 0 {
		m.fellow = wireFellow{id: memberID(f.uint64()), expects: memberID(f.uint64()), able: f.uint32()}
		m.fellow.address = f.bytes(uint32(f.uint8()))
	}
	m.block = hasBlock
	if f.short {
		m.block = badBlock
	}
	return m, nil
}

// whoseID is a user's, group's or process's number; all ones: it is not known.
func whoseID(told uint32) int {
	if told == math.MaxUint32 {
		return -1
	}
	return int(told)
}

// fields takes fields off the front of a frame. Once one is not all there,
// short is set and every further one is empty.
type fields struct {
	rest  []byte
	short bool
}

func (f *fields) bytes(n uint32) []byte {
	if f.short || uint64(n) > uint64(len(f.rest)) {
		f.short = true
		return nil
	}
	b := f.rest[:n:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) uint8() byte {
	if b := f.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) uint32() uint32 {
	if b := f.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (f *fields) uint64() uint64 {
	if b := f.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// frame builds WRITE or READ_OK around the chunk's own bytes, in the room it
// keeps before and behind them, so that nothing is copied. It overwrites what
// stood there.
func (c *segment) frame(id messageID, block blockState, channel uint32) []byte {
	head := c.buf[c.r-chunkOffset : c.r]
	copy(head, signature)
	head[2] = byte(id)
	binary.BigEndian.PutUint32(head[headerBytes:], uint32(c.w-c.r))
	b := c.buf[c.r-chunkOffset : c.w]
	if id == msgWrite {
		b = binary.BigEndian.AppendUint32(b, 0)
	}
	if block != noBlock {
		b = appendBlock(b, channel)
	}
	return b
}

// A queue's chunks travel several in one message: the chunk field of WRITE and
// READ_OK is a sequence of records, each a length of four bytes and the chunk.
const recordHead = 4

// maxRecords is the size of a message with more than one chunk.
const maxRecords = 64 << 10

// fits says that a frame may have that chunk, too.
func fits(frame, chunk []byte) bool {
	return len(frame) == chunkOffset || len(frame)+recordHead+len(chunk) <= maxRecords
}

func appendRecord(b, chunk []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(chunk)))
	return append(b, chunk...)
}

// records takes the chunk apart, a sequence of at most so many. They are safe to keep.
func (m *message) records(most int) ([][]byte, bool) {
	n := 0
	for f := (fields{rest: m.chunk}); len(f.rest) > 0; n++ {
		if f.bytes(f.uint32()); f.short || n == most {
			return nil, false
		}
	}
	chunks := make([][]byte, 0, n)
	for f := (fields{rest: m.chunk}); len(f.rest) > 0; {
		chunks = append(chunks, m.own(f.bytes(f.uint32()), m.chunk))
	}
	return chunks, n > 0
}
