"""Lets the guest of written-guest work, trim and shut down, through its agent: agent.py SOCKET LINES.

LINES is the file to which the guest writes its lines: see tests/live/guest_init.cc.
"""

import os
import socket
import sys
import time

SOCKET, LINES = sys.argv[1:]
FLUSHES = 20


def count(word):
    if not os.path.exists(LINES):
        return 0
    with open(LINES, encoding="ascii", errors="replace") as file:
        return sum(line.startswith(word) for line in file)


def wait_until(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.1)
    sys.exit("agent.py: the guest does not answer")


wait_until(lambda: count("S ") >= FLUSHES)
agent = socket.socket(socket.AF_UNIX)
agent.connect(SOCKET)
agent.sendall(b'{"execute": "guest-fstrim"}\n')
wait_until(lambda: count("T") > 0)
before = count("S ")
wait_until(lambda: count("S ") >= before + FLUSHES)
agent.sendall(b'{"execute": "guest-shutdown"}\n')
