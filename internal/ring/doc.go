// Package ring is a stream of bytes through memory that two processes share, though
// neither trusts the other.
//
// A [Writer] copies into the memory and publishes how far it has come; a [Reader] copies
// out and publishes how far it has; a [Keeper], which made the memory and may be a third
// process, says where the stream ends. They meet in nothing but the memory, five numbers
// in its header, and bells: functions that make the other end look again. What these
// numbers are and who may set them is in layout.go. A writer may also mark places in the
// stream, see marks.go.
//
// # The core
//
// All of this works over any []byte, without a system call, a goroutine or a clock.
// Nothing waits: a call that can't go on notes in the memory what it is short of and
// returns, and the other end rings when that has changed. Whoever hears the bell calls
// again. An end is used by one goroutine at a time (or under a lock of its owner's), but
// for [Writer.Fill] and [Reader.Copy], which are meant to be called without that lock.
//
// The other end may write into the memory whatever it likes, at any time. So each end
// keeps what it knows for itself, loads the other's number once for each decision, and
// takes no value that an honest end could not have put there: that is [ErrBroken], and
// this end is over. Bytes may be spoiled by the other end, and only they.
//
// # Linux
//
// [Make] makes the memory (a memfd whose size is sealed), [Map] checks and maps what came
// from another process, and [Bell] makes one end hear of the other. Elsewhere, and on
// processors where Go's 64-bit atomics would be locks, [Supported] is false and these
// return errors.ErrUnsupported.
package ring
