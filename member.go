package zpipes

import (
	"strconv"
	"time"
)

// A memberID names a broker of a cluster from its start to its end: a broker that starts again
// is another member. 0 is nobody.
type memberID uint64

func (id memberID) String() string { return strconv.FormatUint(uint64(id), 16) }

// A Member is a broker of a cluster, as another one sees it.
type Member struct {
	// Name is BROKER@HOST: the broker's name, and the host's as it calls itself.
	Name string `json:"name"`
	// ID is another one each time that the broker starts.
	ID string `json:"id"`
	// Address is where it is reached; empty for the broker itself, and where
	// none is known.
	Address string `json:"address,omitempty"`
	// State is "self", "linked", or "missing": it was linked, or others say that
	// it is there, and it can't be reached. A broker that has ended in good
	// order is no member any more, and a missing one is forgotten after an
	// hour. One of Config.Join that was never reached has no ID.
	State string `json:"state"`
	// Since is when that began.
	Since time.Time `json:"since"`
	// RTT is the round trip time of the link, or 0.
	RTT time.Duration `json:"rtt_ns,omitempty"`
	// Why it is missing, as far as that is known; or why nothing goes from here to one that
	// is linked, as where it can connect to this broker, and not the other way round.
	Why string `json:"why,omitempty"`
}

// What Member.State may be.
const (
	MemberSelf    = "self"
	MemberLinked  = "linked"
	MemberMissing = "missing"
)
