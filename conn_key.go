//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"time"
)

// A badge is what a client shows over tcp, and the key of the broker to whom it shows it.
type badge struct {
	client keyPair
	broker publicKey
}

// badges are those that a client has, in the order in which it tries them.
func (cfg *ClientConfig) badges() ([]*badge, error) {
	if cfg.BrokerKey != "" && cfg.Key.IsZero() {
		return nil, errors.New("ClientConfig.BrokerKey is of no use without a Key of the client's own")
	}
	var brokers []publicKey
	for text := range strings.SplitSeq(cfg.BrokerKey, ",") {
		if text == "" {
			continue
		}
		k, err := parsePublicKey(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("ClientConfig.BrokerKey: %w", err)
		}
		brokers = append(brokers, k)
	}
	var badges []*badge
	for _, s := range cfg.Key.all() {
		own := brokers
		if cfg.BrokerKey == "" {
			own = []publicKey{s.pair(brokerRole).public}
		}
		for _, k := range own {
			badges = append(badges, &badge{s.pair(clientRole), k})
		}
	}
	return badges, nil
}

// dialTime is how long one attempt over tcp may take to find the host: the system waits
// ever longer before it tries again, and a new attempt does not.
const dialTime = time.Second

// A handshakeFailure is how libzmq says that there is no connection.
type handshakeFailure byte

const (
	failedSilently handshakeFailure = iota // the other side has hung up
	failedUnknown                          // it does not know the client's key
	failedProtocol                         // it does not want any, or wants one
	failedWrong                            // it has another key itself
)

// errWrongBroker: the broker has hung up in the handshake.
var errWrongBroker = errors.New("the broker has another key")

// dialBadges tries all that the client can show, until the broker takes one.
func dialBadges(ctx context.Context, c *Client, endpoint string) (k *conn, err error) {
	badges, _ := c.cfg.badges()
	if c.named || !strings.HasPrefix(endpoint, "tcp:") || len(badges) == 0 {
		return dialOnce(ctx, c, endpoint, nil)
	}
	var unknown error // of all refusals it says most
	for _, b := range badges {
		k, err = dialOnce(ctx, c, endpoint, b)
		if errors.Is(err, errUnknownKey) {
			unknown = err
		} else if !errors.Is(err, errWrongBroker) {
			return k, err
		}
	}
	if unknown != nil {
		err = unknown
	}
	return nil, err
}

var errUnknownKey = errors.New("it does not know the key")

// notLetIn has the dial fail, and say what to do. It is not the owner that calls it.
func (k *conn) notLetIn(f handshakeFailure) {
	if f == failedSilently {
		f = k.ask()
	}
	if f != failedSilently {
		k.deny(k.explain(f), "")
	}
	k.kill("the handshake failed")
}

// ask finds out why somebody has hung up. Who has another mechanism may do that before he
// has said so; who has the same one has another key. Who says nothing may just be ending.
func (k *conn) ask() handshakeFailure {
	c, err := net.DialTimeout("tcp", strings.TrimPrefix(k.at, "tcp://"), dialTime)
	if err != nil {
		return failedSilently
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(dialTime))
	wants, err := mechanismOf(c)
	switch keyed := wants == "CURVE"; {
	case err != nil || !keyed && k.badge == nil:
		return failedSilently
	case keyed != (k.badge != nil):
		return failedProtocol
	}
	return failedWrong
}

// explain is what a user needs to know.
func (k *conn) explain(f handshakeFailure) error {
	refused := func(sentinel error, format string, args ...any) error {
		return fmt.Errorf("%w: the broker at %s %s%w", fs.ErrPermission, k.at, fmt.Sprintf(format, args...), hidden{sentinel})
	}
	switch {
	case f == failedUnknown && k.badge != nil:
		return refused(errUnknownKey, "does not know this client's key, %v; its BrokerConfig.AllowKeys can allow it", k.badge.client.public)
	case f == failedUnknown:
		return refused(nil, "does not take this client")
	case f == failedProtocol && k.badge == nil:
		return refused(nil, "wants a key; ClientConfig.Key has to be its secret, or a key of this client's own, together with BrokerKey")
	case f == failedProtocol:
		return refused(nil, "does not encrypt: it has no key; ClientConfig.Key is of no use for it")
	case k.client.cfg.BrokerKey != "":
		return refused(errWrongBroker, "is not the one with the key %v, or has a new secret; ClientConfig.BrokerKey has to be its present one", k.badge.broker)
	}
	return refused(errWrongBroker, "has another secret than this client, for whom its key would be %v; "+
		"ClientConfig.Key may be old, or the broker's, or this client's own, and then it needs a BrokerKey", k.badge.broker)
}

// hidden is a sentinel that an error is, without saying it once more.
type hidden struct{ error }

func (hidden) Error() string   { return "" }
func (h hidden) Unwrap() error { return h.error }
