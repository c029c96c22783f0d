//go:build linux

package netrig

import (
	"encoding/binary"
	"net/netip"
)

// A Forward is what a router lets in from outside: connections to its port Outside are for Inside at the host behind it.
type Forward struct{ Outside, Inside uint16 }

// A router has a host seem to be at a public address, to which the host itself can't connect. What is not TCP gets lost
// there. A nil router does nothing.
type router struct {
	public netip.Addr
	Forward
}

// inside is the address of each host that is behind a router.
var inside = netip.AddrFrom4([4]byte{10, 0, 0, 2})

const (
	sourceAt, targetAt = 12, 16 // in the IP header; of ports, in that of TCP:
	sourcePortAt       = 0
	targetPortAt       = 2
)

// out translates what the host sends, and says whether it leaves. The packet has a receiver.
func (r *router) out(packet []byte) bool {
	if r == nil {
		return true
	}
	ip, tcp := headers(packet)
	if tcp == nil || [4]byte(ip[targetAt:]) == r.public.As4() {
		return false
	}
	translate(ip, tcp, sourceAt, r.public)
	if binary.BigEndian.Uint16(tcp[sourcePortAt:]) == r.Inside {
		patch(tcp[sourcePortAt:], binary.BigEndian.AppendUint16(nil, r.Outside), tcpSum(tcp))
	}
	return true
}

// in translates what comes for the host, and says whether it may: it is for the port that is forwarded, or of a connection
// that the host has made.
func (r *router) in(packet []byte) bool {
	if r == nil {
		return true
	}
	ip, tcp := headers(packet)
	if tcp == nil {
		return false
	}
	const flagsAt, syn, ack = 13, 1 << 1, 1 << 4
	port := binary.BigEndian.Uint16(tcp[targetPortAt:])
	begins := tcp[flagsAt]&(syn|ack) == syn
	if port != r.Outside && (begins || port == r.Inside) {
		return false
	}
	translate(ip, tcp, targetAt, inside)
	if port == r.Outside {
		patch(tcp[targetPortAt:], binary.BigEndian.AppendUint16(nil, r.Inside), tcpSum(tcp))
	}
	return true
}

// headers are those of a packet, and all that is behind them; tcp is nil if it is not TCP.
func headers(packet []byte) (ip, tcp []byte) {
	const protocolAt, isTCP, leastTCP = 9, 6, 20
	ip = packet[headerBytes:]
	if n := 4 * int(ip[0]&15); ip[protocolAt] == isTCP && len(ip) >= n+leastTCP {
		tcp = ip[n:]
	}
	return ip, tcp
}

func tcpSum(tcp []byte) []byte { return tcp[16:18] }

// translate puts another address into a packet.
func translate(ip, tcp []byte, at int, addr netip.Addr) {
	patch(ip[at:], addr.AsSlice(), ip[10:12], tcpSum(tcp))
}

// patch changes a field, and checksums that it is part of (RFC 1624).
func patch(field, to []byte, sums ...[]byte) {
	for i := 0; i < len(to); i += 2 {
		before, after := binary.BigEndian.Uint16(field[i:]), binary.BigEndian.Uint16(to[i:])
		for _, sum := range sums {
			x := uint32(^binary.BigEndian.Uint16(sum)) + uint32(^before) + uint32(after)
			x = x&0xffff + x>>16
			x = x&0xffff + x>>16
			binary.BigEndian.PutUint16(sum, ^uint16(x))
		}
	}
	copy(field, to)
}
