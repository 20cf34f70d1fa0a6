"""Parses what --metrics writes, for each command that has it: metrics_test.py VIRT_COMPACT."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from prometheus_client.parser import text_string_to_metric_families

PROGRAM = os.path.abspath(sys.argv[1])
PREFIX = "virt_compact_last_run_"
SIZES = {"before_bytes", "after_bytes"}
METRICS = SIZES | {"duration_seconds", "success", "changed", "timestamp_seconds"}
READING = {"bench", "compare", "info", "map", "measure", "space", "help"}
DOMAIN = """<domain type='kvm'><name>x</name><devices><disk type='file' device='disk'>
<driver name='qemu' type='qcow2'/><source file='/x'/><target dev='vda' bus='virtio'/>
</disk></devices></domain>
"""
LINE = re.compile(r'(virt_compact_[a-z_]+)\{command="([a-z]+)",disk="((?:[^"\\\n]|\\["\\n])*)"\} '
                  r"([0-9]+(?:\.[0-9]+)?)")


def run(folder, *command):
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def read_strictly(path):
    """Returns {(command, disk): {metric: value}}.  The grammar is stricter than Prometheus's."""
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    assert text.endswith("\n") and "\r" not in text, text
    lines = text[:-1].split("\n")
    series, now, seen = {}, None, set()
    while lines:
        line = lines.pop(0)
        if line.startswith("# HELP "):
            now = line.split(" ")[2]
            assert now not in seen, f"two groups of {now}"
            seen.add(now)
            assert len(line.split(" ", 3)[3]) > 10
            assert lines.pop(0) == f"# TYPE {now} gauge"
            assert not lines[0].startswith("#"), f"{now} has no value"
            continue
        match = LINE.fullmatch(line)
        assert match and match[1] == now, line
        disk = re.sub(r"\\(.)", lambda it: "\n" if it[1] == "n" else it[1], match[3])
        values = series.setdefault((match[2], disk), {})
        assert match[1].startswith(PREFIX) and match[1] not in values
        values[match[1][len(PREFIX):]] = float(match[4])
    # Prometheus's own client must read the same.
    theirs = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge" and family.documentation
        for it in family.samples:
            key = it.labels["command"], it.labels["disk"]
            theirs.setdefault(key, {})[it.name[len(PREFIX):]] = it.value
    assert theirs == series, (theirs, series)
    return series


class Metrics(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="virt-compact-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.file = self.path("run.prom")
        run(self.folder, "qemu-img", "create", "-q", "-f", "qcow2", "disk", "64M")
        run(self.folder, "qemu-io", "-c", "write -P 3 0 8M", "disk")

    def path(self, name):
        return os.path.join(self.folder, name)

    def tool(self, *words, metrics=None):
        return subprocess.run([PROGRAM, words[0], f"--metrics={metrics or self.file}", *words[1:]],
                              cwd=self.folder, capture_output=True, text=True, check=False)

    def blocks(self, name):
        return os.stat(self.path(name)).st_blocks * 512

    def one(self, command, disk, keys=frozenset(METRICS)):
        series = read_strictly(self.file)
        self.assertEqual(list(series), [(command, disk)])
        values = series[command, disk]
        self.assertEqual(set(values), set(keys))
        self.assertLess(abs(values["timestamp_seconds"] - time.time()), 600)
        self.assertEqual([it for it in os.listdir(self.folder) if "run.prom" in it], ["run.prom"])
        return values

    def test_each_command_that_changes_something(self):
        run(self.folder, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk", "-F", "qcow2", "overlay")
        run(self.folder, "qemu-img", "create", "-q", "-f", "qcow2", "holes", "64M")
        run(self.folder, "qemu-io", "-d", "unmap", "-c", "write 0 4M", "-c", "write 8M 4M", "-c", "discard 0 4M",
            "holes")
        run(self.folder, "truncate", "-s", "64M", "raw")
        run(self.folder, "mke2fs", "-q", "-F", "raw")
        run(self.folder, "qemu-img", "convert", "-O", "qcow2", "raw", "fs")
        with open(self.path("domain.xml"), "w", encoding="ascii") as file:
            file.write(DOMAIN)
        # The words, the label, the file before and after, and whether it changes.
        cases = [
            (["copy", "disk", "new"], "new", "disk", "new", True),
            (["copy", "--force", "--untrusted", "disk", "new"], "new", "disk", "new", True),
            (["flatten", "overlay", "flat"], "flat", "overlay", "flat", True),
            (["optimize", "--force", "fs"], "fs", "fs", "fs", True),
            (["optimize", "--minimum-gain=90%", "--backup=.old", "fs"], "fs", "fs", "fs", False),
            (["rollback", "fs"], "fs", "fs", "fs", True),
            (["trim", "--metadata", "fs"], "fs", "fs", "fs", True),
            (["snapshot", "-c", "s", "disk"], "disk", "disk", "disk", True),
            (["snapshot", "-l", "disk"], "disk", "disk", "disk", False),
            (["snapshot", "--export", "s", "disk", "of-s"], "of-s", "disk", "of-s", True),
            (["snapshot", "-d", "s", "disk"], "disk", "disk", "disk", True),
            (["check", "disk"], "disk", "disk", "disk", False),
            (["check", "--untrusted", "disk"], "disk", "disk", "disk", False),
            (["check", "-r", "all", "disk"], "disk", "disk", "disk", False),
            (["compact", "--defragment", "disk"], "disk", "disk", "disk", False),
            (["optimize", "--in-place", "--trim=none", "disk"], "disk", "disk", "disk", False),
            (["optimize", "--in-place", "holes"], "holes", "holes", "holes", True),
            (["rebase", "-u", "-b", "new", "-F", "qcow2", "overlay"], "overlay", "overlay", "overlay", True),
            (["flatten", "--in-place", "overlay"], "overlay", "overlay", "overlay", True),
            (["tune", "domain.xml"], "domain.xml", "domain.xml", "domain.xml", False),
            (["tune", "--apply", "domain.xml"], "domain.xml", "domain.xml", "domain.xml", True),
        ]
        for words, label, before, after, changed in cases:
            with self.subTest(words=words):
                size = self.blocks(before)
                done = self.tool(*words)
                self.assertEqual(done.returncode, 0, done.stderr)
                values = self.one(words[0], self.path(label))
                self.assertEqual(values["before_bytes"], size)
                self.assertEqual(values["after_bytes"], self.blocks(after))
                self.assertEqual(values["success"], 1)
                self.assertEqual(values["changed"], int(changed))
                self.assertEqual(os.stat(self.file).st_mode & 0o777, 0o644)
        # punch and nightly have tests of their own.
        commands = {it[0][0] for it in cases} | {"punch", "nightly"}
        listed = subprocess.run([PROGRAM, "--help-all"], capture_output=True, text=True, check=True).stdout
        every = set(re.findall(r"^  ([a-z]+)  +[a-z]", listed, re.M)) - {"virt"}
        self.assertEqual(commands, every - READING)
        for it in every - {"help"}:
            shown = subprocess.run([PROGRAM, it, "--help-all"], capture_output=True, text=True, check=True)
            self.assertEqual("--metrics FILE" in shown.stdout, it in commands, it)

    def test_a_server_has_no_sizes(self):
        done = self.tool("punch", "[", "nbdkit", "memory", "1M", "]")
        self.assertEqual(done.returncode, 0, done.stderr)
        series = read_strictly(self.file)
        self.assertEqual(len(series), 1)
        self.assertEqual(set(next(iter(series.values()))), METRICS - SIZES)

    def test_several_disks_have_results_of_their_own(self):
        shutil.copyfile(self.path("disk"), self.path("other"))
        with open(self.path("damaged"), "wb") as file:
            file.write(b"QFI\xfb" + bytes(4096))
        done = self.tool("optimize", "--trim=none", "--force", "disk", "damaged", "other")
        self.assertEqual(done.returncode, 1)
        results = {os.path.basename(disk): values["success"]
                   for (_, disk), values in read_strictly(self.file).items()}
        self.assertEqual(results, {"disk": 1, "damaged": 0, "other": 1})

    def test_a_failure_is_recorded(self):
        done = self.tool("copy", "absent", "new")
        self.assertEqual(done.returncode, 1)
        self.assertIn("absent: No such file", done.stderr)
        values = self.one("copy", self.path("new"), METRICS - SIZES)
        self.assertEqual((values["success"], values["changed"]), (0, 0))

    def test_damage_that_check_finds_is_no_success(self):
        with open(self.path("disk"), "r+b") as file:
            file.seek(24)  # the size of the disk: 1 GiB, for which the L1 table is too small
            file.write((64 << 30).to_bytes(8, "big"))
        done = self.tool("check", "disk")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.one("check", self.path("disk"))["success"], 0)

    def test_a_run_that_is_stopped_is_recorded(self):
        with subprocess.Popen([PROGRAM, "copy", f"--metrics={self.file}", "--rate-limit=256k", "--progress=json",
                               "disk", "new"], cwd=self.folder, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE) as process:
            self.assertIn(b'"copy"', process.stderr.readline())
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(), -signal.SIGTERM)
        self.assertEqual(self.one("copy", self.path("new"), METRICS - {"after_bytes"})["success"], 0)

    def test_names_are_escaped(self):
        name = 'a "b" \\c\nd\xe4'
        os.rename(self.path("disk"), self.path(name))
        self.assertEqual(self.tool("snapshot", "-c", "s", name).returncode, 0)
        # The name is shown as in messages: with \\x0a for the newline.
        self.one("snapshot", self.path(name.replace("\n", "\\x0a")))
        broken = os.path.join(os.fsencode(self.folder), b"b\xff")
        shutil.copyfile(self.path(name), broken)
        self.assertEqual(self.tool("snapshot", "-c", "t", broken).returncode, 0)
        self.one("snapshot", self.path("b\\xff"))

    def test_the_file_is_replaced_in_one_step(self):
        self.assertEqual(self.tool("snapshot", "-c", "a", "disk").returncode, 0)
        with open(self.file, encoding="utf-8") as old:
            whole = old.read()
            self.assertEqual(self.tool("check", "disk").returncode, 0)
            old.seek(0)
            self.assertEqual(old.read(), whole)
            self.assertNotEqual(os.fstat(old.fileno()).st_ino, os.stat(self.file).st_ino)
        self.one("check", self.path("disk"))

    def test_nothing_is_done_if_the_file_cannot_be_created(self):
        os.mkdir(self.path("folder"))
        with open(self.path("disk"), "rb") as file:
            content = file.read()
        for place, why in ((self.path("nowhere/x.prom"), "No such file or directory"),
                           (self.path("folder"), "is not a regular file"),
                           ("/dev/stdout", "is not a regular file"), (self.path("folder/"), "name a file")):
            with self.subTest(place=place):
                done = self.tool("snapshot", "-c", "s", "disk", metrics=place)
                self.assertEqual(done.returncode, 1)
                self.assertRegex(done.stderr, r"^virt-compact: error: --metrics: .*" + why)
                with open(self.path("disk"), "rb") as file:
                    self.assertEqual(file.read(), content)

    def test_a_dry_run_has_no_metrics(self):
        done = self.tool("optimize", "--dry-run", "disk")
        self.assertEqual(done.returncode, 1)
        self.assertIn("--metrics and --dry-run exclude each other", done.stderr)
        self.assertFalse(os.path.exists(self.file))


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    unittest.main(argv=sys.argv[:1])
