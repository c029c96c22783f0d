package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Names, causes and errors come from others, and a terminal obeys what is in them. So
// whatever is printed for people goes through visible, which is for names, or harmless.

// visible is a name as a shell reads it: it can be typed again, and has one line and no
// control characters.
func visible(name string) string {
	plain := name != "" && name[0] != '-' && name[0] != '=' // for zsh, =ls is /bin/ls
	for i, r := range name {
		switch {
		case !shown(r, name[i:]), strings.ContainsRune("\"$`\\!", r):
			return ansiQuoted(name)
		case r < utf8.RuneSelf && !isWordByte(byte(r)):
			plain = false
		}
	}
	if plain {
		return name
	}
	return `"` + name + `"`
}

// quoted is visible within a sentence: always in quotes.
func quoted(name string) string {
	if text := visible(name); text != name {
		return text
	}
	return `"` + name + `"`
}

// shown says that a terminal shows r, which text begins with, and does nothing else.
func shown(r rune, text string) bool {
	return unicode.IsPrint(r) && (r != utf8.RuneError || strings.HasPrefix(text, "\uFFFD"))
}

// isWordByte says that no shell takes c for anything but a letter of a word.
func isWordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("_-./:=@%+,", c) >= 0
}

// ansiQuoted has bash, zsh and others read any name.
func ansiQuoted(name string) string { return "$'" + ansiBody(name) + "'" }

func ansiBody(name string) string {
	var b strings.Builder
	for len(name) > 0 {
		r, n := utf8.DecodeRuneInString(name)
		switch {
		case r == '\'' || r == '\\':
			b.WriteString(`\` + name[:n])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case shown(r, name):
			b.WriteString(name[:n])
		default:
			for i := range n {
				fmt.Fprintf(&b, `\%03o`, name[i]) // three digits: what follows can't be taken for one more
			}
		}
		name = name[n:]
	}
	return b.String()
}

// harmless is a text of several words, with what a terminal might obey in it escaped.
func harmless(text string) string {
	var b strings.Builder
	for i, r := range text {
		if shown(r, text[i:]) {
			b.WriteRune(r)
			continue
		}
		_, n := utf8.DecodeRuneInString(text[i:])
		quoted := strconv.Quote(text[i : i+n])
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// harmlessJSON escapes in JSON text what a terminal might obey, of which encoding/json
// leaves the characters from U+007F on as they are.
type harmlessJSON struct{ io.Writer }

func (h harmlessJSON) Write(text []byte) (int, error) {
	plain := true
	for _, c := range text {
		plain = plain && c < 0x7f
	}
	if plain {
		return h.Writer.Write(text)
	}
	b := make([]byte, 0, len(text))
	for rest := string(text); rest != ""; {
		r, n := utf8.DecodeRuneInString(rest)
		if r < 0x7f || shown(r, rest) {
			b = append(b, rest[:n]...)
		} else {
			for _, unit := range utf16.AppendRune(nil, r) {
				b = fmt.Appendf(b, `\u%04x`, unit)
			}
		}
		rest = rest[n:]
	}
	if _, err := h.Writer.Write(b); err != nil {
		return 0, err
	}
	return len(text), nil
}
