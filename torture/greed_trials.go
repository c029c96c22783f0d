package main

// greed is the trials in which clients want more than there is.
func greed() []trial {
	return []trial{
		{"unread", "a reader that never reads", "10 GiB are offered to it", 0, unread},
		{"pipelining", "a client that never waits for an answer", "a million requests of each kind", 0, pipelining},
		{"crowd", "many such clients", "100 at once, of all kinds", 0, crowd},
		{"opens", "ends that come and go", "a million opens; a third of the ends is not closed, their connections or processes just end", 0, opens},
		{"waiting", "many pipes with a reader that waits", "10,000 pipes over four processes, some data through each, and then all go, half of them killed", 0, waiting},
		{"huge", "READs of 4 GiB", "thousands at once, of each kind", 0, hugeReads},
		{"frames", "frames of every size and number", "at, just below and just above the limit, tiny, empty, very many in a message", 0, frames},
		{"names", "names of every kind", "every length, every byte, by every interface", 0, names},
	}
}
