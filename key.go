package zpipes

import (
	"bufio"
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
)

// Key is what encrypts connections over tcp: a secret of 32 random bytes, or
// several while one replaces another, the one in use first. The brokers of one
// owner have the same secret, and so have the clients that belong to them; a
// client that does not has a Key of its own. See BrokerConfig.Key and
// ClientConfig.Key. The zero Key is none.
//
// Nothing that prints a Key, or what has one in it, shows the secret; Secret
// does.
type Key struct {
	secrets func() []secret // into which nobody looks who prints by reflection; nil: there are none
}

// newKey holds these secrets.
func newKey(secrets []secret) Key { return Key{func() []secret { return secrets }} }

// A secret is what all keys of its owner come from.
type secret [32]byte

// A publicKey is CURVE's, and so X25519's.
type publicKey [32]byte

// A keyPair is one end's of a connection.
type keyPair struct {
	public  publicKey
	private [32]byte
}

// What the text of each begins with.
const (
	secretPrefix = "zpipes-secret-"
	publicPrefix = "zpipes-public-"
)

// Whose key pair it is that comes from a secret. What another version would derive
// otherwise has another number.
const (
	brokerRole = "zpipes 1 broker"
	clientRole = "zpipes 1 client"
)

const (
	// maxSecrets is how many a Key has: more than any rotation needs.
	maxSecrets = 8
	// maxKeyFile is how large a file with a Key may be.
	maxKeyFile = 64 << 10
)

// NewKey makes a Key with a new secret.
func NewKey() Key {
	var s secret
	rand.Read(s[:])
	return newKey([]secret{s})
}

// ParseKey reads a Key as Key.Secret and the command "zpipes key" write it: one
// secret in a line, the one in use first. Empty lines and those that begin with
// # do not count. An error does not show the text.
func ParseKey(text string) (Key, error) {
	var secrets []secret
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, maxKeyFile)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		var s secret
		switch rest, ok := strings.CutPrefix(line, secretPrefix); {
		case strings.HasPrefix(line, publicPrefix):
			return Key{}, fmt.Errorf("line %d is a public key; a secret begins with %s", n, secretPrefix)
		case !ok || !decodeKey(s[:], rest):
			return Key{}, fmt.Errorf("line %d is no secret such as zpipes key prints", n)
		case len(secrets) == maxSecrets:
			return Key{}, fmt.Errorf("there are more than %d secrets", maxSecrets)
		}
		secrets = append(secrets, s)
	}
	if len(secrets) == 0 || lines.Err() != nil {
		return Key{}, fmt.Errorf("there is no secret in it; zpipes key makes one")
	}
	return newKey(secrets), nil
}

// ReadKey reads a Key from a file, in the form that ParseKey takes. It refuses
// with fs.ErrPermission a file that other users can read or write.
func ReadKey(file string) (Key, error) {
	f, err := os.Open(file)
	if err != nil {
		return Key{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Key{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return Key{}, err
	}
	k, err := ParseKey(string(text))
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", file, err)
	}
	// Not before it is sure to be a key's: who is told to does it, whatever file it is.
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return Key{}, fmt.Errorf("%w: others can use the secret in %s (its mode is %04o): chmod 600 %[2]s", fs.ErrPermission, file, mode)
	}
	return k, nil
}

// IsZero says that there is no secret.
func (k Key) IsZero() bool { return k.secrets == nil }

// all are the secrets, the one in use first.
func (k Key) all() []secret {
	if k.secrets == nil {
		return nil
	}
	return k.secrets()
}

// Secret is the text that ParseKey takes. Who has it can do what this Key's
// owner can.
func (k Key) Secret() string {
	var text strings.Builder
	for _, s := range k.all() {
		fmt.Fprintf(&text, "%s%s\n", secretPrefix, base64.RawURLEncoding.EncodeToString(s[:]))
	}
	return text.String()
}

// BrokerKeys are the public keys by which clients know a broker that has this
// Key, one for each secret; see ClientConfig.BrokerKey. Everybody may know them.
func (k Key) BrokerKeys() []string { return k.publicKeys(brokerRole) }

// ClientKeys are the public keys by which a broker knows a client that has this
// Key, one for each secret; see BrokerConfig.AllowKeys. Everybody may know them.
func (k Key) ClientKeys() []string { return k.publicKeys(clientRole) }

func (k Key) publicKeys(role string) (keys []string) {
	for _, s := range k.all() {
		keys = append(keys, s.pair(role).public.String())
	}
	return keys
}

// Derive returns 32 secret bytes for each secret, in the same order, for a
// purpose that is the caller's: what comes from one tells nothing of the secret,
// or of what another purpose has.
func (k Key) Derive(purpose string) [][]byte {
	var keys [][]byte
	for _, s := range k.all() {
		keys = append(keys, s.derive("for "+purpose))
	}
	return keys
}

// String does not show the secret.
func (k Key) String() string {
	if k.IsZero() {
		return "no key"
	}
	return "a secret key"
}

// GoString is String.
func (k Key) GoString() string { return k.String() }

// pair derives a key pair.
func (s secret) pair(role string) keyPair {
	private := s.derive(role)
	key, err := ecdh.X25519().NewPrivateKey(private)
	if err != nil {
		panic(err) // never: all 32 bytes are a key
	}
	return keyPair{publicKey(key.PublicKey().Bytes()), [32]byte(private)}
}

func (s secret) derive(role string) []byte {
	b, err := hkdf.Key(sha256.New, s[:], nil, role, len(s))
	if err != nil {
		panic(err) // never: the length is fixed
	}
	return b
}

// parsePublicKey reads a public key as it is printed here, or as ZeroMQ's tools do.
func parsePublicKey(text string) (key publicKey, err error) {
	rest, ours := strings.CutPrefix(text, publicPrefix)
	switch {
	case strings.HasPrefix(text, secretPrefix):
		return key, errors.New("that is a secret, which is nobody's but its owner's; zpipes key --public FILE prints what belongs here")
	case ours && decodeKey(key[:], rest), decodeZ85(key[:], text):
		return key, nil
	}
	return key, fmt.Errorf("%q is no public key such as zpipes key --public FILE prints", text)
}

func (p publicKey) String() string { return publicPrefix + base64.RawURLEncoding.EncodeToString(p[:]) }

func decodeKey(to []byte, text string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && len(b) == len(to) && copy(to, b) > 0
}

// z85 is how ZeroMQ writes binary keys (its RFC 32): four bytes are five digits.
const z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

func encodeZ85(key [32]byte) string {
	text := make([]byte, 0, 40)
	for i := 0; i < len(key); i += 4 {
		n := binary.BigEndian.Uint32(key[i:])
		for _, power := range []uint32{85 * 85 * 85 * 85, 85 * 85 * 85, 85 * 85, 85, 1} {
			text = append(text, z85[n/power%85])
		}
	}
	return string(text)
}

func decodeZ85(to []byte, text string) bool {
	if len(text) != len(to)/4*5 {
		return false
	}
	for i := 0; i < len(text); i += 5 {
		n := uint64(0)
		for _, c := range []byte(text[i : i+5]) {
			digit := bytes.IndexByte([]byte(z85), c)
			if digit < 0 {
				return false
			}
			n = n*85 + uint64(digit)
		}
		if n > 1<<32-1 {
			return false
		}
		binary.BigEndian.PutUint32(to[i/5*4:], uint32(n))
	}
	return true
}
