"""Runs a command, and measures its time and memory."""

import os
import statistics
import subprocess
import time


class Failed(Exception):
    pass


def timed(command, output=None):
    """Runs `command` in a shell, and returns the seconds it took.

    With `output`, the time includes a sync of that file.
    """
    begin = time.monotonic()
    process = subprocess.Popen(["bash", "-o", "pipefail", "-c", command],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    _, errors = process.communicate()
    if process.returncode != 0:
        raise Failed(f"{command}\n{errors.strip()}")
    if output:
        subprocess.run(["sync", output], check=True)
    return time.monotonic() - begin


def peak_of(command):
    """Returns the peak memory of `command`, in KiB.  A separate run, because measuring memory takes time."""
    result = subprocess.run(["/usr/bin/env", "python3", "-c", PEAK, command], text=True,
                            capture_output=True, check=False, stdin=subprocess.DEVNULL)
    return int(result.stdout.split()[-1]) if result.returncode == 0 else None


PEAK = """
import resource, subprocess, sys
done = subprocess.run(["bash", "-o", "pipefail", "-c", sys.argv[1]], stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


def warm(path):
    """Reads a file once, so that all runs find it in the page cache, as far as it fits."""
    with open(path, "rb", buffering=0) as file:
        while file.read(16 << 20):
            pass


def remove(path):
    try:
        os.remove(path)
    except FileNotFoundError:
        pass


def ratio(ours, peers):
    """Returns the ratio of the medians.  Below 1, virt-compact is faster."""
    return statistics.median(ours) / statistics.median(peers)
