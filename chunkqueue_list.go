package zpipes

// A jobList is a queue of jobs, each of which is in one such list at most. Its zero value is
// empty. It is a list, and no array, so that one that runs full and empty all the time does
// not grow anew each time.
type jobList struct {
	first, last *job
	n           int
}

func (q *jobList) len() int    { return q.n }
func (q *jobList) front() *job { return q.first }

func (q *jobList) push(j *job) {
	if q.n++; q.first == nil {
		q.first = j
	} else {
		q.last.next = j
	}
	q.last, j.next = j, nil
}

func (q *jobList) pop() *job {
	j := q.first
	if q.first, j.next = j.next, nil; q.first == nil {
		q.last = nil
	}
	q.n--
	return j
}

// popLast is for lists that are short.
func (q *jobList) popLast() *job {
	var rest jobList
	for q.n > 1 {
		rest.push(q.pop())
	}
	j := q.pop()
	*q = rest
	return j
}

// unshift puts jobs before all others.
func (q *jobList) unshift(jobs []*job) {
	for i := len(jobs) - 1; i >= 0; i-- {
		j := jobs[i]
		if j.next = q.first; q.first == nil {
			q.last = j
		}
		q.first = j
		q.n++
	}
}

func (q *jobList) all() []*job {
	jobs := make([]*job, 0, q.n)
	for j := q.first; j != nil; j = j.next {
		jobs = append(jobs, j)
	}
	return jobs
}
