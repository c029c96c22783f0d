//go:build !core

package zpipes

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// A keyring is by what a broker knows its clients of other machines. It does not change.
type keyring struct {
	key     Key
	clients map[string]bool // public keys, as they are printed
}

func newKeyring(key Key, allow []string) (*keyring, error) {
	if key.IsZero() && len(allow) > 0 {
		return nil, errors.New("AllowKeys are of no use without a Key")
	}
	r := &keyring{key: key, clients: make(map[string]bool)}
	for _, text := range allow {
		k, err := parsePublicKey(text)
		if err != nil {
			return nil, fmt.Errorf("AllowKeys: %w", err)
		}
		r.clients[k.String()] = true
	}
	for _, k := range key.ClientKeys() {
		r.clients[k] = true
	}
	return r, nil
}

// mayUse is why a client with that key may not use the broker. That it has the key, and not
// just knows the public one, it has shown to libzmq.
func (r *keyring) mayUse(key string) error {
	if r.clients[key] {
		return nil
	}
	return errors.New("its key is none of this broker's; BrokerConfig.AllowKeys can allow it")
}

// The doors of a broker's socket; libzmq tells which one somebody has come by.
const (
	plainDoor = "zpipes"
	keyedDoor = "zpipes keyed"
)

// opens says whether a client is let in by libzmq, and what it is called: by its address,
// or its key.
func (b *zmqHost) opens(q zapRequest) (peer string, err error) {
	peer = q.address
	if q.door == keyedDoor {
		// What the socket was told when it was bound is asked once more: a door that
		// should need a key and does not would be open to all.
		if q.mechanism != "CURVE" || len(q.credentials) != len(publicKey{}) || !sameProcess(q.address) {
			err = errors.New("it has come without a key, or past the tcp door")
			b.refused(peer, err)
			return "", err
		}
		peer = publicKey(q.credentials).String()
	}
	_, err = b.admit(peer)
	return peer, err
}

// openTCP opens the tcp door at an address.
func (b *zmqHost) openTCP(address string) error {
	if b.zap == nil {
		return errors.New("a Key needs a Context of the broker's own, since in a shared one somebody else may decide who connects")
	}
	if err := checkCurve(); err != nil {
		return err
	}
	var at string
	_, err := claim("tcp", address, nil, func() (err error) {
		at, err = b.door.listen(address)
		return err
	})
	if err != nil {
		return fmt.Errorf("tcp://%s: %w", address, err)
	}
	b.bound = append(b.bound, at)
	return nil
}

// changePlaces has the socket serve the secrets of a Key, and no others: connections that
// were made with another one end. It is serve's, or called before.
func (b *zmqHost) changePlaces(key Key) error {
	var places, fresh []keyPlace
	old := b.door.allPlaces()
	for _, s := range key.all() {
		i := slices.IndexFunc(old, func(p keyPlace) bool { return p.secret == s })
		if i >= 0 {
			places = append(places, old[i])
			continue
		}
		at, err := b.sock.bindKeyed(keyedDoor, s)
		if err != nil {
			for _, p := range fresh {
				b.sock.unbind(p.endpoint)
			}
			return err
		}
		fresh = append(fresh, keyPlace{s, at})
		places = append(places, keyPlace{s, at})
	}
	b.door.setPlaces(places)
	for _, p := range old {
		if !slices.Contains(places, p) {
			b.sock.unbind(p.endpoint)
		}
	}
	return nil
}

// SetKeys replaces BrokerConfig.Key and AllowKeys of a broker that was started
// with a Key. Clients whose key is still allowed go on, unless they had
// connected by a secret that is gone; all others are dropped, and get
// ErrBrokerGone. So a secret is replaced without a stop: the broker gets a Key
// with the new one and the old one, then the clients get the new one, and then
// the broker a Key without the old one. When SetKeys returns nil, new clients
// meet the new keys. After an error all is as it was.
func (b *Broker) SetKeys(key Key, allow []string) error {
	if err := b.setKeys(key, allow); err != nil {
		return &OpError{Op: "set keys", Broker: b.name, Err: err}
	}
	return nil
}

func (b *Broker) setKeys(key Key, allow []string) error {
	if b.cfg.Key.IsZero() || key.IsZero() {
		return errors.New("a broker has a Key from its start to its end, or never")
	}
	keys, err := newKeyring(key, allow)
	if err != nil {
		return err
	}
	b.rekey.Lock()
	defer b.rekey.Unlock()
	if !b.serving() {
		return os.ErrClosed
	}
	if b.zeromq != nil && len(b.zeromq.door.listeners) > 0 {
		c := &keyChange{host: b.zeromq, keys: keys, done: make(chan error, 1)}
		b.zeromq.post(c)
		select {
		case err = <-c.done:
		case <-b.zeromq.done:
			err = os.ErrClosed
		}
	} else {
		b.keys.Store(keys)
	}
	if err == nil {
		b.log.info("keys changed", "secrets", len(key.all()), "clients", len(keys.clients))
	}
	return err
}

// A keyChange waits for the owner of the socket.
type keyChange struct {
	host *zmqHost
	keys *keyring
	done chan error
	mail letter[resumer] // guarded by the host's mailbox
}

func (c *keyChange) letter() *letter[resumer] { return &c.mail }

func (c *keyChange) resume(time.Time) {
	before := c.host.keys.Swap(c.keys) // who comes by a new place finds the new keys
	err := c.host.changePlaces(c.keys.key)
	if err != nil {
		c.host.keys.Store(before)
	}
	c.done <- err
}
