// Package seglog keeps queues on the disk: which jobs there are, what was last said of each,
// and their bodies. It is a log in segments, with one write and one fdatasync for all that
// came during the last one.
//
// # Use
//
// A Store is a directory with queues, a Log one of them. Its Owner appends operations (Put, Taken,
// Returned, Dead, Done, Config, Gone), which waits for nothing, and is told how many more survive
// a loss of power: Committed. A goroutine commits, and is there only while there is something to
// commit; a while later the log's file is closed, too. In memory are 16 bytes for each job, and what was
// last said of those of which something was said; bodies are read back with Read.
//
// What is appended while a commit waits for the disk goes into the next one. There is no timer:
// a commit only lets those run first whom the last one has woken.
//
// Taken is written, but waits for no fdatasync: it survives the process, and after a loss of power all
// workers are gone anyway. One for which nobody waits (Op.Lazy) is written with what comes next, or a millisecond later.
//
// # Promises
//
// What was Committed is there after SIGKILL or a loss of power at any moment, and what was not is there
// for whole batches in their order, or not at all. A bit that has changed on the disk is noticed when
// it is read, unless it is in the last batch after a crash, which then looks torn: a queue with such a bit
// is refused with ErrCorrupt, until Repair, and others are not concerned. All of it holds on Linux, with
// fdatasync and fallocate; other systems do what they can.
//
// A full disk, a full Account, or too few descriptors stall Puts, and only these: they stay in
// memory, are tried again, and Stalled says why. For all others each segment has half as much room again, and some for keys; if
// the file system can't promise that, a file of ballast is thrown away to make some. What else
// fails, a sync in particular, is final: Failed. The log is then closed, and loaded again from what is on the
// disk.
//
// # Disk
//
// A segment is as large as what lived when it was begun, and twice what keys of jobs took, between 1/16 of Options.SegmentBytes
// and all of it; keys of jobs that are gone are copied to the end when their segment goes.
// Segments are removed from the front, since what one says of a job counts as long as the job's record is
// in one before it. When more than twice of what lives is on the disk, and two segments more, the jobs of the first
// segment are copied to the end, 1 MiB with each commit. When a log comes to rest whose tail has far more room
// than what lives would have, a smaller one is begun.
//
// # Layout
//
// All numbers are little-endian, all checksums CRC-32C. A directory has
//
//	lock                one process has it (flock)
//	N/                  a queue; N is a number, and the name is within
//	N/00000001.log      segments, numbered in hexadecimal without gaps
//	N/00000001.idx      and their indexes
//	N/ballast           where the file system can't promise room
//	N.gone/             is being deleted
//	N.new/              is being repaired
//	N.broken/           as it was before a repair
//
// Whatever else is in it is somebody else's, and is left alone.
//
// A segment is a header of 1024 bytes, and batches:
//
//	 0  8  "zplog", 0, 0, 1
//	 8  4  number of the segment
//	12  4  length of the segment before it
//	16  4  how many segments before it count
//	20  8  salt, random
//	28  8  incarnation of the queue, random
//	36  8  an id larger than that of any job put in segments before
//	44  2  length of the queue's name, and the name, up to 255 bytes
//	    2  length of its configuration, and the configuration, up to 512 bytes
//	1020 4 checksum of all before it
//
// A batch is what one commit wrote:
//
//	 0  4  checksum of all that follows
//	 4  4  length of the records
//	 8  8  the segment's salt
//	16  4  offset of the batch in the segment
//	20  4  how much of the segment was synced before
//	24  4  how many segments before this one count
//	28     records
//
// The salt and the offset keep what a job has in it from being taken for a batch. How much was synced tells a
// tear from rot: if a good batch says that a bad one before it was synced, it was no torn write. When
// a log comes to rest, an empty batch says so of the last one.
//
// A record is
//
//	1  kind: 1 Put, 2 Taken, 3 Returned, 4 Dead, 5 Done, 6 Config, 7 Gone; +16: there is a due time; +32: there is a text
//	8  id of the job
//	8  when it was sent, in Unix nanoseconds             Put, Gone
//	8  when it is due, likewise                          +16: Put, Returned
//	4  deliveries                                        Taken, Returned, Dead
//	1  length of a text, and the text                    +32: Put and Gone (the key), Dead (the reason), Config (the name), Done (of what has gone with its key)
//	4  length of the body                                Put, Config
//	4  checksum of the record but for this field         Put, Config
//	   body                                              Put, Config
//
// A Put of a job that is there is a copy, which counts from then on; what was last said of it follows
// in the same batch. A Gone is the key of a job that is gone, as long as Options.KeyFor says.
//
// An index has the records of a segment without the bodies of jobs, up to a place where the segment was synced.
// What is behind that place is read from the segment; or all of it, where the index is missing or not good,
// since an index is not synced. That of the tail grows, and its end is written over then; a tail of less than
// 1 MiB has none.
//
//	 0  8  "zpidx", 0, 0, 2
//	 8  8  the segment's salt
//	16     for each record its offset (4), and the record up to its body; a Config with that
//	    4  how many segments before this one count there
//	    4  that place
//	    4  checksum of all before it
//
// # After a crash
//
// Segments before the first that counts are removed; if that one is missing, or a full segment has a bad
// batch, the queue is corrupt. The last segment is cut where its good batches end, unless one behind says that
// more was synced. What no batch says was synced is written and synced once more: after a failed fsync
// it may have been in memory alone.
package seglog
