// Package intest shows pipes in tests: each test embeds a broker of its own, so that tests run in
// parallel, need nothing on the machine, and leave nothing behind. See its test file.
package intest
