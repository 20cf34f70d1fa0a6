#!/usr/bin/python3
"""Runs a backup job of QEMU: backup_job.py full|incremental IMAGE BITMAP TARGET

full:         adds the persistent BITMAP to IMAGE, and copies the disk to TARGET (raw).
incremental:  copies what BITMAP has recorded since then to TARGET.
"""

import json
import subprocess
import sys

mode, image, bitmap, target = sys.argv[1:]


def node(name, driver, path):
    return ["--blockdev", json.dumps({"driver": driver, "node-name": name,
                                      "file": {"driver": "file", "filename": path}})]


daemon = subprocess.Popen(
    ["qemu-storage-daemon", "--chardev", "stdio,id=m", "--monitor", "chardev=m"]
    + node("disk", "qcow2", image) + node("target", "raw", target),
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(key, value=None):
    for line in daemon.stdout:
        message = json.loads(line)
        if "error" in message:
            sys.exit(line)
        if key in message and value in (None, message[key]):
            return message
    sys.exit("qemu-storage-daemon has ended")


def send(command, arguments=None):
    request = {"execute": command}
    if arguments:
        request["arguments"] = arguments
    daemon.stdin.write(json.dumps(request) + "\n")
    daemon.stdin.flush()
    wait_for("return")


wait_for("QMP")
send("qmp_capabilities")
backup = {"job-id": "job", "device": "disk", "target": "target", "sync": mode}
if mode == "full":
    add = {"node": "disk", "name": bitmap, "persistent": True}
    send("transaction", {"actions": [{"type": "block-dirty-bitmap-add", "data": add},
                                     {"type": "blockdev-backup", "data": backup}]})
else:
    send("blockdev-backup", dict(backup, bitmap=bitmap))
done = wait_for("event", "BLOCK_JOB_COMPLETED")
if "error" in done["data"]:
    sys.exit(done["data"]["error"])
daemon.stdin.write('{"execute": "quit"}\n')
daemon.stdin.flush()
daemon.stdout.read()
sys.exit(daemon.wait())
