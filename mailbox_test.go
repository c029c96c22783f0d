package zpipes

import (
	"slices"
	"testing"
)

type addressed struct {
	number int
	mail   letter[*addressed]
}

var _ addressee[*addressed] = (*addressed)(nil)

func (x *addressed) letter() *letter[*addressed] { return &x.mail }

// What is put is taken in order, once each however often it was put, some at a time; and
// what is put meanwhile the next time. Nothing is allocated for it.
func TestMailboxKeepsOrder(t *testing.T) {
	var m mailbox[*addressed]
	all := make([]addressed, 10)
	for i := range all {
		all[i].number = i
		if !m.put(&all[i]) || m.put(&all[i]) {
			t.Errorf("%d: it is there before it was put, or not behind", i)
		}
	}
	step := func(most int, again bool, left bool, want ...int) {
		t.Helper()
		var got []int
		if is := m.each(most, func(x *addressed) {
			got = append(got, x.number)
			if again {
				m.put(x)
			}
		}); is != left || !slices.Equal(got, want) {
			t.Errorf("%v, some left: %v, want %v and %v", got, is, want, left)
		}
	}
	step(3, false, true, 0, 1, 2)
	step(2, true, true, 3, 4)
	step(7, true, false, 5, 6, 7, 8, 9, 3, 4)
	step(100, false, false, 5, 6, 7, 8, 9, 3, 4)
	step(100, false, false)
	if m.len() != 0 || m.first != nil || m.last != nil || all[3].mail.next != nil {
		t.Error("an empty one keeps something")
	}
	if n := testing.AllocsPerRun(100, func() {
		for i := range all {
			m.put(&all[i])
		}
		m.each(len(all), func(*addressed) {})
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
