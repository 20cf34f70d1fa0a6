"""Running one command, and what it took."""

import os
import statistics
import subprocess
import time


class Failed(Exception):
    pass


def timed(command, output=None):
    """Runs `command` in a shell; with `output`, until that file is on the disk.

    Returns seconds, and the peak memory of the largest process in KiB.
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
    """The same for memory alone, in KiB: outside the timing, since watching costs."""
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
    """Reads a file once: all runs find it in the page cache, as far as it fits."""
    with open(path, "rb", buffering=0) as file:
        while file.read(16 << 20):
            pass


def remove(path):
    try:
        os.remove(path)
    except FileNotFoundError:
        pass


def ratio(ours, peers):
    """Of the medians; below 1 we are faster."""
    return statistics.median(ours) / statistics.median(peers)
