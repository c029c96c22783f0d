package zpipes

import "encoding/binary"

// A lot is what is said of several jobs of a queue in one message: JOBS brings them, and DONE says that they are done.
// Its chunk is a sequence:
//
//	JOBS = 1*(length(4) id(8) delivery(4) sent(8) bytes) ; length is of what follows
//	DONE = 1*(id(8) delivery(4))
const (
	jobHead  = 8 + 4 + 8
	doneSize = 8 + 4
)

// beginLot begins one in b, and endLot makes it a message.
func beginLot(b []byte, id messageID) []byte {
	b = append(b[:0], signature...)
	return append(b, byte(id), 0, 0, 0, 0)
}

func endLot(b []byte, channel uint32, incarnation uint64) []byte {
	binary.BigEndian.PutUint32(b[headerBytes:], uint32(len(b)-chunkOffset))
	return binary.BigEndian.AppendUint64(appendBlock(b, channel), incarnation)
}

// fitsLot says that a JOBS which has n bytes so far may have that job, too.
func fitsLot(n int, j *job) bool { return n+recordHead+jobHead+len(j.data) <= maxRecords }

func appendJob(b []byte, j *job) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(jobHead+len(j.data)))
	b = binary.BigEndian.AppendUint64(b, j.id)
	b = binary.BigEndian.AppendUint32(b, j.deliveries)
	b = binary.BigEndian.AppendUint64(b, uint64(j.sent))
	return append(b, j.data...)
}

func appendDone(b []byte, ref wireJob) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, ref.id), ref.delivery)
}

// eachJob calls f with the jobs of a JOBS, whose bodies are safe to keep. It says false where it is none, and has called f
// with nothing then.
func (m *message) eachJob(f func(ref wireJob, body []byte)) bool {
	jobs, ok := m.records(len(m.chunk))
	for _, j := range jobs {
		ok = ok && len(j) >= jobHead
	}
	if !ok {
		return false
	}
	for _, j := range jobs {
		h := fields{rest: j}
		f(wireJob{m.token, h.uint64(), h.uint32(), int64(h.uint64())}, h.rest)
	}
	return true
}

// dones are the jobs of a DONE, none where it is none.
func (m *message) dones() (refs []wireJob) {
	if len(m.chunk)%doneSize != 0 {
		return nil
	}
	for f := (fields{rest: m.chunk}); len(f.rest) > 0; {
		refs = append(refs, wireJob{incarnation: m.token, id: f.uint64(), delivery: f.uint32()})
	}
	return refs
}
