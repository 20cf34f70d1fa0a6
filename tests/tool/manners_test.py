"""Runs each command on terminals, in pipes and quietly: manners_test.py VIRT_COMPACT."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

PROGRAM = os.path.abspath(sys.argv[1])
COLOR = b"\x1b["
DOMAIN = """<domain type='kvm'><name>x</name><devices><disk type='file' device='disk'>
<driver name='qemu' type='qcow2'/><source file='/x'/><target dev='vda' bus='virtio'/>
</disk></devices></domain>
"""
# `map` and `snapshot -l` print their list with -q, as in qemu-img.
LISTS = [["map", "disk"], ["snapshot", "-l", "disk"]]
COMMANDS = LISTS + [
    ["info", "disk"],
    ["check", "disk"],
    ["compare", "disk", "same"],
    ["measure", "disk"],
    ["space", "filesystem"],
    ["bench", "--count", "8", "disk"],
    ["tune", "domain.xml"],
    ["copy", "--force", "disk", "copy"],
    ["optimize", "--dry-run", "filesystem"],
    ["optimize", "--force", "filesystem"],
    ["rollback", "filesystem"],
    ["trim", "--metadata", "filesystem"],
    ["compact", "filesystem"],
    ["compact", "--defragment", "--compress", "filesystem"],
    ["snapshot", "-c", "s", "disk"],
    ["snapshot", "-d", "s", "disk"],
    ["flatten", "--force", "overlay", "flat"],
    ["rebase", "-u", "-b", "same", "-F", "qcow2", "overlay"],
    ["punch", "[", "nbdkit", "memory", "1M", "]"],
    ["nightly", "--policy", "policy.toml", "--dry-run"],
    ["nightly", "--policy", "policy.toml"],
]


def make(folder):
    def run(*command):
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(folder, "domain.xml"), "w", encoding="ascii") as file:
        file.write(DOMAIN)
    run("qemu-img", "create", "-q", "-f", "qcow2", "disk", "64M")
    run("qemu-io", "-c", "write -P 3 0 8M", "disk")
    run("qemu-img", "snapshot", "-c", "first", "disk")
    shutil.copyfile(os.path.join(folder, "disk"), os.path.join(folder, "same"))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk", "-F", "qcow2", "overlay")
    run("truncate", "-s", "64M", "raw")
    run("mke2fs", "-q", "-F", "raw")
    run("qemu-img", "convert", "-O", "qcow2", "raw", "filesystem")
    shutil.copyfile(os.path.join(folder, "same"), os.path.join(folder, "night"))
    with open(os.path.join(folder, "policy.toml"), "w", encoding="ascii") as file:
        file.write(f'state = "{folder}/state"\n[[disk]]\npath = "{folder}/night"\n')
    os.chmod(os.path.join(folder, "policy.toml"), 0o644)


def environment(**changes):
    made = {**os.environ, "TERM": "xterm", "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", **changes}
    if "NO_COLOR" not in changes:
        made.pop("NO_COLOR", None)
    return made


def on_terminal(command, folder, **changes):
    """Returns the exit code and what the command writes to a terminal."""
    controller, terminal = pty.openpty()
    with subprocess.Popen([PROGRAM, *command], cwd=folder, env=environment(**changes),
                          stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        told = b""
        while True:
            try:
                piece = os.read(controller, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            told += piece
    os.close(controller)
    return process.returncode, told


class Manners(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = temporary.name
        make(self.folder)

    def run_all(self, *options, **changes):
        """Returns each command with its outcome, both outputs in pipes."""
        outcomes = []
        for command in COMMANDS:
            done = subprocess.run([PROGRAM, *command, *options], cwd=self.folder, check=False,
                                  env=environment(**changes), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.assertEqual(done.returncode, 0, (command, done.stderr))
            outcomes.append((command, done))
            # `rollback` needs the backup of the command before it.
            backup = os.path.join(self.folder, "filesystem.bak")
            if command[0] == "rollback" and os.path.exists(backup):
                os.remove(backup)
        return outcomes

    def test_a_log_gets_neither_colours_nor_bars(self):
        for command, done in self.run_all():
            told = done.stdout + done.stderr
            self.assertNotIn(COLOR, told, command)
            self.assertNotIn(b"\r", told, command)
            if command[0] != "snapshot":  # -c and -d print nothing, as in qemu-img
                self.assertNotEqual(told, b"", command)

    def test_quiet_commands_print_nothing(self):
        for command, done in self.run_all("-q"):
            self.assertEqual(done.stderr, b"", command)
            if command not in LISTS:
                self.assertEqual(done.stdout, b"", command)

    def test_quiet_commands_print_the_json_that_was_requested(self):
        for command, done in self.run_all("-q", "--json"):
            self.assertEqual(done.stderr, b"", command)
            json.loads(done.stdout)

    def test_a_terminal_gets_colours(self):
        code, told = on_terminal(["info", "disk"], self.folder)
        self.assertEqual(code, 0)
        self.assertIn(COLOR, told)
        code, told = on_terminal(["info", "nowhere"], self.folder)
        self.assertEqual(code, 1)
        self.assertIn(COLOR, told)

    def test_no_color_and_dumb_terminals_have_none(self):
        for changes in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            for command in (["info", "disk"], ["space", "filesystem"], ["info", "nowhere"],
                            ["copy", "--force", "disk", "copy"]):
                _, told = on_terminal(command, self.folder, **changes)
                self.assertNotIn(COLOR, told, command)

    def test_trace_helps_a_report(self):
        # A QEMU that fails at once: nothing is booted.
        done = subprocess.run([PROGRAM, "trim", "-x", "filesystem"], cwd=self.folder, check=False,
                              env=environment(LIBGUESTFS_HV="/bin/false", LIBGUESTFS_BACKEND="direct"),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 1)
        lines = done.stderr.splitlines()
        kernel = os.uname()
        self.assertRegex(lines[0], r"^virt-compact: version [0-9.]+, Linux " +
                         re.escape(f"{kernel.release} {kernel.machine}") + "$")
        self.assertRegex(done.stderr, r"libnbd \d+\.\d+\.\d+, libguestfs \d+\.\d+\.\d+, libvirt \d+")
        self.assertRegex(done.stderr, r"(?m)^virt-compact: nbdkit: nbdkit \d+\.\d+")
        self.assertIn("libguestfs: trace: launch", done.stderr)
        # The error names the next step.
        self.assertIn("libguestfs-test-tool", done.stderr)

    def test_without_trace_libguestfs_is_silent(self):
        done = subprocess.run([PROGRAM, "trim", "-v", "filesystem"], cwd=self.folder, check=False,
                              env=environment(LIBGUESTFS_HV="/bin/false", LIBGUESTFS_BACKEND="direct"),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        self.assertRegex(done.stderr.splitlines()[0], "^virt-compact: version ")
        self.assertNotIn("trace", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
