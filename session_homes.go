package zpipes

// elsewhere is for the open of a queue that is not here. It says whether that is answered, or another
// broker's matter; else it goes on when it is known where the queue is.
func (c *channel) elsewhere(q *request, name string, create bool, failed messageID) (done bool) {
	i := q.inquiry
	switch {
	case c.session.member != 0: // it is for that one to look for it
		c.reply(failed, causeIsAway)
	case i == nil:
		q.inquiry = c.session.pipes.exchange.inquire(name, create, c.recheck)
		return false
	case i.why != nil:
		c.reply(failed, *i.why)
	case i.at == 0: // it was here, just now
		i.again()
		return false
	default:
		c.told = 0
		c.forward(q, i.at)
		c.session.account.addEnds(1)
	}
	return true
}
