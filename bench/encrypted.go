package main

import (
	"errors"
	"io"

	"github.com/pebbe/zmq4"
	"github.com/zpipes/zpipes"
)

// secret is for measurements, and no secret.
const secret = "zpipes-secret-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

// keyedPipes is zpipes over tcp, encrypted.
type keyedPipes struct{ pipes }

func newKeyedPipes(t Task) transport {
	t.Secret = secret
	return &keyedPipes{pipes{Task: t}}
}

func (p *keyedPipes) serve() (string, error) {
	key, err := zpipes.ParseKey(secret)
	if err != nil {
		return "", err
	}
	p.broker, err = zpipes.BrokerConfig{Key: key, Endpoints: []string{"tcp://127.0.0.1:*"}}.NewBroker("")
	if err != nil {
		return "", err
	}
	p.Address = p.broker.Endpoints()[1]
	return p.Address, nil
}

// keyedBare is ZeroMQ over tcp, encrypted, without anything in the middle: what a DEALER
// sends, a ROUTER gets.
type keyedBare struct{ bare }

// serve finds a port.
func (b *keyedBare) serve() (string, error) {
	address, err := freePort()
	return "tcp://" + address, err
}

// keys are everybody's.
func (b *keyedBare) keys(s *zmq4.Socket) error {
	const private = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"
	public, err := zmq4.AuthCurvePublic(private)
	return errors.Join(err, s.SetCurvePublickey(public), s.SetCurveSecretkey(private), s.SetCurveServerkey(public))
}

func (b *keyedBare) reader(int) (_ source, err error) {
	if b.router, err = b.socket(zmq4.ROUTER); err != nil {
		return nil, err
	}
	err = errors.Join(b.keys(b.router), b.router.SetCurveServer(1))
	if err == nil {
		err = b.router.Bind(b.Address)
	}
	return routed{&b.bare}, err
}

func (b *keyedBare) writer(int) (_ io.Writer, err error) {
	if b.dealer, err = b.socket(zmq4.DEALER); err != nil {
		return nil, err
	}
	if err = b.keys(b.dealer); err == nil {
		err = b.dealer.Connect(b.Address)
	}
	return messages{b.dealer}, err
}
