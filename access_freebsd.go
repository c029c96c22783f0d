package zpipes

// peerProcess would be the process at the other end.
func peerProcess(int) int { return 0 }
