//go:build race

package main

// raceDetector: its own memory would drown the figures.
const raceDetector = true
