package peer

import (
	"errors"
	"syscall"
	"testing"
)

func TestPrivileged(t *testing.T) {
	t.Parallel()
	const nobody = 65534
	for _, test := range []struct {
		name     string
		uid, own uint32
		want     bool
	}{
		{"root asks root", 0, 0, true},
		{"a user asks root", 1000, 0, false},
		{"root asks a user's daemon", 0, 1000, true},
		{"a user asks his own daemon", 1000, 1000, true},
		{"a user asks another's daemon", 1001, 1000, false},
		{"somebody of elsewhere asks root", nobody, 0, false},
		{"somebody of elsewhere asks a daemon without a user", nobody, nobody, false},
	} {
		if got := privileged(test.uid, test.own, nobody); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestCrowd(t *testing.T) {
	t.Parallel()
	c := Crowd[int]{Most: 3, Each: 2}
	for i, step := range []struct {
		who   int
		leave bool
		want  string // the error
	}{
		{who: 1},
		{who: 1},
		{who: 1, want: "one has 2 connections: too many users"},
		{who: 2},
		{who: 3, want: "3 connections are open: too many users"},
		{who: 1, leave: true},
		{who: 3},
		{who: 1, want: "3 connections are open: too many users"},
		{who: 3, leave: true},
		{who: 1},
	} {
		if step.leave {
			c.Leave(step.who)
			continue
		}
		err := c.Enter(step.who, "one")
		if got := errText(err); got != step.want || err != nil && !errors.Is(err, syscall.EUSERS) {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	for _, who := range []int{1, 1, 2} {
		c.Leave(who)
	}
	if c.total != 0 || len(c.members) != 0 {
		t.Errorf("all have left, and there are %d, %v", c.total, c.members)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
