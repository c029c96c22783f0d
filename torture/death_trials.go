package main

// deathTrials kill and stop processes.
func deathTrials() []trial {
	const checked = "every byte, the error at the other end, and that the name is free"
	return []trial{
		{
			name: "kill-streams", fault: "a writer's or reader's process dies",
			how: "SIGKILL at random moments; " + checked, share: 10, run: killStreams,
		},
		{
			name: "kill-queues", fault: "a sender's or receiver's process dies",
			how: "SIGKILL at random moments; every chunk, and the order where one lives", share: 10, run: killQueues,
		},
		{
			name: "restart", fault: "a broker's process dies, and another takes its name at once; or it stands still",
			how: "SIGKILL and SIGSTOP under load; all ends, and what the new pipes of the same names carry", share: 10, run: restart,
		},
		{
			name: "routing-ids", fault: "a raw client that waits is killed, and another takes its routing id",
			how: "the old protocol, the extension and text; the heir must get no answer and no pipe of the dead", share: 6, run: routingIDs,
		},
		{
			name: "stop", fault: "a process stands still for too long, and goes on",
			how: "SIGSTOP at random moments, SIGCONT when all others know", share: 10, run: stopEnds,
		},
	}
}
