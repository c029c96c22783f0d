package main

import (
	"strings"
	"unicode/utf8"
)

// A bashLine is what bash has on its line, up to the cursor. To read it nothing is
// evaluated: a word with an expansion in it is unknown.
type bashLine struct {
	words    []string // those before the one at the cursor; see unknownWord
	current  string   // what of the word at the cursor is there
	unknown  bool     // current has an expansion in it
	redirect bool     // current is the file of a redirection
	quote    byte     // current ends within ' or ", or $ for $'
	base     int      // bash replaces current from here on
}

// unknownWord is no name of anything.
const unknownWord = "\x00"

func readBashLine(text, breaks string) bashLine {
	var l bashLine
	var word strings.Builder
	begun := false
	end := func() {
		switch {
		case !begun && !l.unknown:
			return
		case l.redirect:
		case l.unknown:
			l.words = append(l.words, unknownWord)
		default:
			l.words = append(l.words, word.String())
		}
		word.Reset()
		begun, l.unknown, l.redirect, l.base = false, false, false, 0
	}
	depth := 0      // of parentheses
	outer := 0      // base before the quote
	digits := false // the word so far is a number, maybe a descriptor's
	for i := 0; i < len(text); i++ {
		c := text[i]
		next := byte(0)
		if i+1 < len(text) {
			next = text[i+1]
		}
		switch {
		case l.quote == '$' && c == '\'', l.quote != 0 && l.quote != '$' && c == l.quote:
			l.quote, l.base = 0, outer
		case l.quote == '$' && c == '\\':
			r, n := ansiEscape(text[i:])
			word.WriteString(r)
			i += n - 1
		case l.quote == '"' && c == '\\' && (next == 0 || strings.IndexByte("\"\\$`", next) >= 0),
			l.quote == 0 && c == '\\':
			if i++; next != 0 && next != '\n' {
				word.WriteByte(next)
			}
			begun = true
		case (l.quote == 0 || l.quote == '"') && (c == '`' || c == '$' && next != '\'' && next != '"'):
			l.unknown = true
		case l.quote != 0:
			word.WriteByte(c)
		case c == '$': // $' or $"
			begun, outer, l.base = true, l.base, word.Len()
			if l.quote = '"'; next == '\'' {
				l.quote = '$'
			}
			i++
		case c == '\'' || c == '"':
			begun, outer, l.base = true, l.base, word.Len()
			l.quote = c
		case c == '(':
			l.unknown = true
			depth++
		case c == ')':
			depth--
		case depth > 0:
		case c == ' ' || c == '\t' || c == '\n':
			end()
		case c == '<' || c == '>':
			if digits {
				word.Reset()
				begun = false
			}
			end()
			for i+1 < len(text) && strings.IndexByte("<>&|-", text[i+1]) >= 0 {
				i++
			}
			l.redirect = true
		case c == '&' && next == '>':
			end()
		case c == ';' || c == '&' || c == '|':
			end()
			l.words = nil
		default:
			begun = true
			word.WriteByte(c)
			if strings.IndexByte(breaks, c) >= 0 {
				l.base = word.Len()
				if c == '@' { // bash would complete the name of a host
					l.base--
				}
			}
		}
		digits = begun && word.Len() > 0 && strings.Trim(word.String(), "0123456789") == "" && l.quote == 0
	}
	l.current = word.String()
	return l
}

// ansiEscape reads what ansiBody writes: what it stands for, and how long it is. What is
// not complete is nothing yet.
func ansiEscape(text string) (string, int) {
	switch {
	case len(text) < 2:
		return "", len(text)
	case text[1] == 'n':
		return "\n", 2
	case text[1] == 't':
		return "\t", 2
	case text[1] < '0' || text[1] > '7':
		return text[1:2], 2
	case len(text) < 4:
		return "", len(text)
	}
	n := 0
	for _, d := range text[1:4] {
		n = n<<3 | int(d-'0')&7
	}
	return string([]byte{byte(n)}), 4
}

// offer is what bash is to put in the place of current from base on, so that the word is
// name; false: that can't be had with the quote that is there.
func (l *bashLine) offer(name string) (string, bool) {
	name = name[l.base:]
	special := ""
	switch l.quote {
	case '$':
		return ansiBody(name), true
	case '\'':
		return name, allShown(name) && !strings.Contains(name, "'")
	case '"':
		if !allShown(name) || strings.Contains(name, "!") {
			return "", false
		}
		special = "\"\\$`"
	default:
		if !allShown(name) {
			return ansiQuoted(name), true
		}
	}
	var b strings.Builder
	for _, r := range name {
		if special != "" && strings.ContainsRune(special, r) || special == "" && r < utf8.RuneSelf && !isWordByte(byte(r)) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String(), true
}

func allShown(name string) bool {
	for i, r := range name {
		if !shown(r, name[i:]) {
			return false
		}
	}
	return true
}
