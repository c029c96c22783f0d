package cluster

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"os"
	"slices"
	"time"

	"github.com/zpipes/zpipes"
)

// A memberKey is by what brokers that have one secret know each other. All have the same: what
// each of them shows is that it has the secret.
type memberKey struct {
	public ed25519.PublicKey
	name   string // which one is meant; everybody may know it
	config *tls.Config
}

const (
	// purpose is what the keys are derived for.
	purpose = "cluster member 1"
	// protocol is what is spoken inside.
	protocol = "zpipes-link/1"
)

// keys are those of one state of the key file, the one in use first.
type keys struct {
	all []*memberKey
	at  fileState
}

// A fileState changes with the file.
type fileState struct {
	size    int64
	changed time.Time
}

func stateOf(file string) fileState {
	info, err := os.Stat(file)
	if err != nil {
		return fileState{}
	}
	return fileState{info.Size(), info.ModTime()}
}

func readKeys(file string) (*keys, error) {
	k := &keys{at: stateOf(file)}
	secret, err := zpipes.ReadKey(file)
	if err != nil {
		return nil, err
	}
	for _, seed := range secret.Derive(purpose) {
		m, err := newMemberKey(ed25519.NewKeyFromSeed(seed))
		if err != nil {
			return nil, err
		}
		k.all = append(k.all, m)
	}
	return k, nil
}

func newMemberKey(private ed25519.PrivateKey) (*memberKey, error) {
	public := private.Public().(ed25519.PublicKey)
	sum := sha256.Sum256(public)
	k := &memberKey{public: public, name: hex.EncodeToString(sum[:16])}
	// TLS wants the key in a certificate. Of that nothing but the key counts.
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, err
	}
	k.config = &tls.Config{
		Certificates:                []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: private}},
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{protocol},
		ServerName:                  k.name,
		ClientAuth:                  tls.RequireAnyClientCert,
		InsecureSkipVerify:          true, // VerifyConnection does
		VerifyConnection:            k.verify,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
	return k, nil
}

// verify is called at both sides. That the other one has the private key, TLS has seen to.
func (k *memberKey) verify(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 1 && k.public.Equal(s.PeerCertificates[0].PublicKey) && s.NegotiatedProtocol == protocol {
		return nil
	}
	return errOtherSecret
}

// choose is the server's side of all keys: who connects says by which one.
func (k *keys) choose(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	i := slices.IndexFunc(k.all, func(m *memberKey) bool { return m.name == hello.ServerName })
	if i < 0 {
		return nil, errOtherSecret
	}
	return k.all[i].config, nil
}

// has says that a key is still one of them.
func (k *keys) has(m *memberKey) bool {
	return slices.ContainsFunc(k.all, func(x *memberKey) bool { return x.name == m.name })
}
