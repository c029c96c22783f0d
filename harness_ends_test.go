package zpipes

// What a channel has open, as tests look at it; nil: something else, or nothing.

func openAs[E openEnd](c *channel) E {
	e, _ := c.open.(E)
	return e
}

func queueEndOf(c *channel) *queueEnd {
	switch e := c.open.(type) {
	case *queueMember:
		return &e.queueEnd
	case *queueReader:
		return &e.queueEnd
	case *queueWriter:
		return &e.queueEnd
	}
	return nil
}

// streamEndOf is also what a queueReader reads bytes from.
func streamEndOf(c *channel) *streamEnd {
	switch e := c.open.(type) {
	case *streamReader:
		return &e.streamEnd
	case *statusReader:
		return &e.streamEnd
	case *streamWriter:
		return &e.streamEnd
	case *queueReader:
		return &e.bytes.streamEnd
	}
	return nil
}

func pipeOf(c *channel) *pipe {
	if e := streamEndOf(c); e != nil {
		return e.pipe
	}
	return nil
}
