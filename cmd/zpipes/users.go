package main

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"
)

// A uid is a user, given by number or name.
type uid int

func (u *uid) UnmarshalText(text []byte) error {
	id := string(text)
	if _, err := strconv.ParseUint(id, 10, 31); err != nil {
		who, err := user.Lookup(id)
		if err != nil {
			return fmt.Errorf("there is no user %q", id)
		}
		id = who.Uid
	}
	n, err := strconv.ParseUint(id, 10, 31)
	if err != nil {
		return fmt.Errorf("%q is no number of a user", id)
	}
	*u = uid(n)
	return nil
}

// users are a flag's value: it may be repeated, or name several with commas.
type users []uid

func (us *users) Set(text string) error {
	for _, name := range strings.Split(text, ",") {
		var u uid
		if err := u.UnmarshalText([]byte(strings.TrimSpace(name))); err != nil {
			return err
		}
		*us = append(*us, u)
	}
	return nil
}

func (us *users) Get() any       { return *us }
func (us *users) String() string { return "" }

func (us users) ints() []int {
	var ns []int
	for _, u := range us {
		ns = append(ns, int(u))
	}
	return ns
}
