//go:build race

package zpipes

const underRace = true
