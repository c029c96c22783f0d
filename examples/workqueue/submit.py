"""Puts the lines of its standard input into the queue "jobs", and prints as many results.

    seq 100 | python3 submit.py demo

where demo is the broker's name, or its endpoint. This speaks the broker's text interface with
pyzmq (Debian: python3-zmq). A command is a message of several frames. The answers come in the
order of the commands: OK, or the chunk that was READ, or ERROR and a reason.
"""

import sys

import zmq


def main(broker):
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0  # when there is no broker, do not wait for one at the end
    socket.connect(broker if "://" in broker else "ipc://@/zpipes/" + broker)

    def ask(*frames):
        socket.send_multipart(frames)

    def answer():
        first, *reason = socket.recv_multipart()
        if reason:
            sys.exit(f"submit.py: {first.decode()}: {reason[0].decode()}")
        return first

    # OPEN creates a queue, or holds the one that is there. Results are held from before the first
    # job until the last result has been read: the last CLOSE deletes a queue and what is in it.
    ask(b"OPEN", b"jobs")
    ask(b"OPEN", b"results")
    if not socket.poll(5000):
        sys.exit("submit.py: no broker at " + broker)
    answer()
    answer()

    # Commands need not wait for each other's answers; but the broker queues no more than 4096, and
    # full queues hold up OK. So send some 2000 bytes of jobs, read their results, and go on.
    while batch := sys.stdin.buffer.readlines(2000):
        for line in batch:
            ask(b"WRITE", b"jobs", line.rstrip(b"\n"))
        for _ in batch:
            answer()
            ask(b"READ", b"results")
        for _ in batch:
            sys.stdout.buffer.write(answer() + b"\n")
        sys.stdout.flush()

    ask(b"CLOSE", b"jobs")
    ask(b"CLOSE", b"results")
    answer()
    answer()


if len(sys.argv) != 2:
    sys.exit(__doc__)
main(sys.argv[1])
