package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/zpipes/zpipes"
)

// maxPeeked is how many jobs the page shows of a queue.
const maxPeeked = 50

// tendTime is how long it may take to look at the jobs of a queue, or to drop them: there may be millions.
const tendTime = 10 * time.Minute

// A jobsOf says how many jobs of a queue are in a state.
type jobsOf struct {
	state zpipes.JobState
	n     int
}

func statesOf(i zpipes.PipeInfo) []jobsOf {
	return []jobsOf{
		{zpipes.JobReady, i.Chunks - i.Taken - i.Delayed - i.Dead}, {zpipes.JobTaken, i.Taken},
		{zpipes.JobDelayed, i.Delayed}, {zpipes.JobDead, i.Dead},
	}
}

// showQueue says what there is to say of a queue, and of jobs and the disk only where they matter.
func showQueue(i zpipes.PipeInfo) string {
	if i.Unusable != "" {
		return "queue that can't be used"
	}
	text := "queue, " + showMany(i.Chunks, "chunk") + ", " + showMany(i.Users, "user")
	if i.HomeAt != "" { // there are those that are not handed over yet
		text = "queue at " + showName(i.HomeAt) + ", " + showMany(i.Chunks, "chunk") + " here, " + showMany(i.Users, "user") + " here"
	}
	for _, s := range statesOf(i)[1:] {
		if s.n > 0 {
			text += ", " + showCount(int64(s.n)) + " " + string(s.state)
		}
	}
	if i.Oldest >= time.Second {
		text += ", oldest " + showTime(i.Oldest)
	}
	if i.Handed > 0 {
		text += ", " + showCount(i.Handed) + " delivered"
	}
	if i.Durable {
		text += ", " + bytesText(i.Disk) + " on the disk"
	}
	return text
}

// A pageJob is a job as the page shows it, as text.
type pageJob struct {
	ID    string `json:"id"`
	State string `json:"state"`
	About string `json:"about"`
	Data  string `json:"data"`
}

// jobs serves what the page does with the jobs of a queue: looks, purges and redrives. It is there where
// the page may send and read.
func (s *site) jobs(w http.ResponseWriter, r *http.Request) {
	queue, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/jobs/"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Now().Add(tendTime)) // when that has passed, the request is over
	c.SetWriteDeadline(time.Now().Add(tendTime + httpAnswerTime))
	var answer any
	switch do := r.URL.Query().Get("do"); {
	case r.Method != http.MethodPost: // HEAD changes nothing, either
		answer, err = s.peek(r, queue)
	case do == "redrive":
		answer, err = s.ends.RedriveJobs(r.Context(), queue)
	case do == "purge":
		answer, err = s.ends.PurgeJobs(r.Context(), queue, zpipes.JobState(r.URL.Query().Get("state")))
	default:
		http.Error(w, "do=redrive, or do=purge with a state", http.StatusBadRequest)
		return
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, "there is no such queue", http.StatusNotFound)
	case err != nil:
		http.Error(w, harmless(strings.TrimPrefix(err.Error(), "zpipes: ")), http.StatusConflict)
	default:
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(harmlessJSON{w}).Encode(answer)
	}
}

// peek returns the first jobs of a queue, and behind them why that is not all.
func (s *site) peek(r *http.Request, queue string) ([]pageJob, error) {
	all := []pageJob{}
	for j, err := range s.ends.PeekJobs(r.Context(), queue) {
		if err != nil && len(all) > 0 {
			return append(all, pageJob{State: "unreadable", About: harmless(strings.TrimPrefix(err.Error(), "zpipes: "))}), nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, pageJob{j.ID, string(j.State), aboutJob(j), showName(string(j.Data[:min(len(j.Data), peeked)]))})
		if len(all) == maxPeeked {
			break
		}
	}
	return all, nil
}

func aboutJob(j zpipes.JobInfo) string {
	text := fmt.Sprintf("%s, delivered %s, sent %s ago", bytesText(int64(len(j.Data))), times(j.Deliveries), showTime(time.Since(j.Sent)))
	if until := time.Until(j.Until); until > 0 {
		text += ", for " + showTime(until)
	}
	if j.Reason != "" {
		text += ": " + showName(j.Reason)
	}
	return text
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return showCount(int64(n)) + " times"
}
