//go:build !core

package zpipes

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The vectors of PROTOCOL.md, by which other languages can see whether they derive the same.
func TestKeyVectors(t *testing.T) {
	var s secret
	for i := range s {
		s[i] = byte(i)
	}
	k := newKey([]secret{s})
	text, err := os.ReadFile("docs/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	broker, client := s.pair(brokerRole), s.pair(clientRole)
	for _, want := range []string{
		strings.TrimSpace(k.Secret()),
		hex.EncodeToString(broker.private[:]), encodeZ85(broker.public), broker.public.String(),
		hex.EncodeToString(client.private[:]), encodeZ85(client.public), client.public.String(),
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("PROTOCOL.md lacks %s", want)
		}
	}
}

func TestKeyText(t *testing.T) {
	a, b := NewKey(), NewKey()
	both, err := ParseKey("# of ours\n\n" + a.Secret() + "  " + b.Secret())
	if err != nil || both.Secret() != a.Secret()+b.Secret() {
		t.Errorf("%v", err)
	}
	if got := both.BrokerKeys(); len(got) != 2 || got[0] != a.BrokerKeys()[0] || got[0] == got[1] || got[0] == a.ClientKeys()[0] {
		t.Errorf("public keys %q", got)
	}
	secret := strings.TrimSpace(a.Secret())
	for what, text := range map[string]string{
		"nothing": "", "a comment": "# x", "a public key": a.BrokerKeys()[0], "cut": secret[:len(secret)-1],
		"longer": secret + "A", "other characters": secret[:len(secret)-2] + "+/", "without its prefix": secret[len(secretPrefix):],
		"stray bits": secret[:len(secret)-1] + "B", "too many": strings.Repeat(a.Secret(), maxSecrets+1),
	} {
		k, err := ParseKey(text)
		if err == nil && k.Secret() != text+"\n" {
			t.Errorf("%s: %v", what, k)
		}
		if err != nil && strings.Contains(err.Error(), secret[len(secretPrefix):len(secret)-2]) {
			t.Errorf("%s: the error shows it: %v", what, err)
		}
	}
	z := encodeZ85(a.all()[0].pair(clientRole).public)
	if k, err := parsePublicKey(z); err != nil || k.String() != a.ClientKeys()[0] {
		t.Errorf("%s: %v", z, err)
	}
	for _, text := range []string{"", "x", z[1:], z + "0", strings.Repeat("#", 40), secret, a.ClientKeys()[0] + "A"} {
		if _, err := parsePublicKey(text); err == nil || strings.Contains(err.Error(), secret[len(secretPrefix):]) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Whatever is printed that has a Key in it, the secret is not.
func TestKeyIsNotPrinted(t *testing.T) {
	k := NewKey()
	raw := k.all()[0]
	var log strings.Builder
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("x", "key", k, "config", BrokerConfig{Key: k})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k, "config", ClientConfig{Key: k})
	type hidden struct{ key Key }
	for _, v := range []any{k, &k, []Key{k}, BrokerConfig{Key: k}, &BrokerConfig{Key: k}, ClientConfig{Key: k}, hidden{k}, struct{ c ClientConfig }{ClientConfig{Key: k}}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			fmt.Fprintf(&log, verb+"\n", v)
		}
	}
	for _, form := range []string{
		strings.TrimSpace(k.Secret())[len(secretPrefix):], hex.EncodeToString(raw[:4]), fmt.Sprint(raw[:4]), fmt.Sprintf("%d", raw[:3])[1:6],
	} {
		if strings.Contains(log.String(), strings.Trim(form, "[]")) {
			t.Errorf("%q is in %s", form, log.String())
		}
	}
}

func TestKeyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	k := NewKey()
	for mode, fine := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o660: false, 0o622: false, 0o777: false} {
		os.Remove(file)
		if err := os.WriteFile(file, []byte(k.Secret()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		got, err := ReadKey(file)
		if (err == nil) != (fine || runtime.GOOS == "windows") || err != nil && (!errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "chmod 600 "+file)) {
			t.Errorf("mode %04o: %v", mode, err)
		}
		if err == nil && got.Secret() != k.Secret() {
			t.Errorf("mode %04o: it is another key", mode)
		}
	}
	if _, err := ReadKey(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err == nil {
		if _, err := ReadKey(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("an empty file: %v", err)
		}
	}
	// What is no key's file is not to be closed to others.
	if err := os.WriteFile(file, []byte("root:x:0:0"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Chmod(file, 0o644)
	for _, file := range []string{file, t.TempDir(), os.DevNull} {
		if _, err := ReadKey(file); err == nil || strings.Contains(err.Error(), "chmod") {
			t.Errorf("%s: %v", file, err)
		}
	}
}
