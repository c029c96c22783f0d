package meet

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/zpipes/zpipes/internal/mutants"
)

// A fault leaves one of the rules out.
type fault struct{ name, file, right, wrong string }

var faults = []fault{
	{"an end is not told to registrars when the members change", "meet.go",
		"\t\tb.drop(p)\n\t}\n\tb.round++", "\t\tb.drop(p)\n\t}"},
	{"an end is not told again when a link comes", "meet.go",
		"p.link, p.old = &link{to: m, up: true}, !things\n\tb.round++", "p.link, p.old = &link{to: m, up: true}, !things"},
	{"an end is not told again when its state changes", "meet.go",
		"e.matched = matched\n\t\tb.repeat(e, now)", "e.matched = matched"},
	{"an end that has gone is not unregistered", "meet.go",
		"for _, l := range e.told {\n\t\tb.unregister(e, l, over, now)", "for _, l := range e.told {\n\t\t_ = l"},
	{"who is no registrar of an end any more is not told", "meet.go",
		"if l != want[0] && l != want[1] {\n\t\t\tb.unregister(e, l, false, now)", "if l != want[0] && l != want[1] {\n\t\t\t_ = l"},
	{"what a link brought stays when it breaks", "meet.go",
		"p.link.up = false\n\tb.gone = append(b.gone, p.link)", "p.link.up = true"},
	{"whose turn it is when another goes is not looked at", "book.go",
		"if l := e.in; len(l.entries) > 0 {\n\t\tb.judge(l, now)", "if l := e.in; len(l.entries) > 0 {"},
	{"a writer that was refused is not offered again", "meet.go",
		"b.retry.push(now.Add(retryAfter), t)", "_ = retryAfter"},
	{"two of one kind are not told", "book.go",
		"b.send(e.by, Record{Kind: Conflict, Name: l.name, Role: e.role, Token: e.token, At: x.by.to}, now)", "_ = x"},
	{"they are told at once, though one may be about to go", "meet.go",
		"contestTime = 500 * time.Millisecond", "contestTime = time.Millisecond"},
	{"one that could not go, and is heard of again, is not told again", "book.go",
		"e.matched, e.beaten = r.Matched, time.Time{}", "e.matched = r.Matched"},
	{"who is matched does not beat who waits", "book.go",
		"(x.matched || x.token < e.token)", "x.token < e.token"},
	{"both of two that wait are told", "book.go",
		"(x.matched || x.token < e.token)", "true"},
	{"who is matched is offered again", "book.go",
		"(!e.matched || e.many) && (f", "(f"},
	{"a writer that takes all readers takes one", "book.go",
		"(!e.matched || e.many) && (f", "!e.matched && (f"},
	{"an end that is matched can be told to go", "meet.go",
		"e.key == r.key() && !e.matched && !e.attaching {\n\t\t\tb.host.Conflict", "e.key == r.key() {\n\t\t\tb.host.Conflict"},
	{"a reader takes two writers", "seat.go",
		"again = s.Writer == writer && s.At == at\n\treturn again, again", "s.Writer, s.At = writer, at\n\treturn true, false"},
	{"a writer's resume is refused", "seat.go",
		"return again, again", "return false, again"},
	{"who seeks is not told what is there", "directory.go",
		"tell(e, Offering{Token: x.token, At: x.by.to})", "_ = x.by"},
	{"who seeks is not told that that was all", "directory.go",
		"tell(e, Offering{})", "_ = e.token"},
	{"who seeks is not told of a new offer", "book.go",
		"b.announce(e, Record{Kind: Found}, now)", "if e.role == Seeker {\n\t\t\tb.announce(e, Record{Kind: Found}, now)\n\t\t}"},
	{"who seeks is not told that an offer is no more", "book.go",
		"b.announce(e, Record{Kind: Gone, Over: over}, now)", "_ = over"},
	{"it is not said that an offer is withdrawn", "meet.go",
		"b.unregister(e, l, over, now)", "b.unregister(e, l, false, now)"},
	{"that nobody has it is said when one registrar has answered", "directory.go",
		"whole < s.asked && len(all) == 0 ||", ""},
	{"one that there is no link to is named", "directory.go",
		"p != nil && p.link != nil", "p != nil"},
	{"whom there is a link to now is not looked at again", "meet.go",
		"\tb.report(e)\n}\n\n// repeat", "}\n\n// repeat"},
	{"what former registrars have said is forgotten at once", "directory.go",
		"b.keep(e, now, a.offers...)", "_ = a"},
	{"what a registrar does not know any more is forgotten at once", "directory.go",
		"b.keep(e, now, a.offers[i])", "_ = now"},
	{"what is kept is kept for ever", "directory.go",
		"!now.Before(k.until)", "false"},
}

// Each rule that is left out shows within a thousand worlds.
func TestEachRuleIsNeeded(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the package many times")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs go: ", err)
	}
	simulation := func(file string) bool { return strings.HasPrefix(file, "simulate_") }
	program := mutants.Compile(t, len(faults), "TestSimulate", simulation, func(s *mutants.Source) {
		s.Text = strings.ReplaceAll(s.Text, `"meet.`, `"`+s.Package+".") // flags
		if m := faults[s.Copy]; m.file == s.File {
			s.Replace(t, m.right, m.wrong)
		}
	})
	for i, m := range faults {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			b, err := exec.Command(program, "-test.timeout=3m", "-test.run", fmt.Sprintf("^TestSimulate$/^%d$", i), fmt.Sprintf("-mutant%d.runs=1000", i)).CombinedOutput()
			out := string(b)
			if err == nil {
				t.Fatal("the fault is not found")
			}
			if !strings.Contains(out, "seed ") {
				t.Fatalf("something else is wrong: %v\n%s", err, out)
			}
			t.Log(out[strings.Index(out, "seed "):])
		})
	}
}
