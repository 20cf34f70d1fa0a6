"""Runs the Ansible role on this machine, and lints it: ansible_test.py SOURCE VIRT_COMPACT."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE, PROGRAM = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
ANSIBLE = os.path.join(SOURCE, "deploy", "ansible")


def make_disk(folder, name):
    """Makes a disk with an ext4 filesystem, of which a deleted file takes the most."""
    def run(*command):
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run("mkdir", "-p", "tree")
    for file, size in (("kept", 4 << 20), ("gone", 20 << 20)):
        with open(os.path.join(folder, "tree", file), "wb") as out:
            out.write(os.urandom(size))
    run("truncate", "-s", "64M", "raw")
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", "tree", "raw")
    run("debugfs", "-w", "-R", "rm gone", "raw")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "raw", name)
    run("rm", "-r", "raw", "tree")
    return os.path.join(folder, name)


def content(path):
    with open(path, "rb") as file:
        return file.read()


class Role(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = temporary.name
        self.disk = make_disk(self.folder, "disk one.qcow2")
        self.playbook = os.path.join(self.folder, "playbook.json")

    def run_role(self, *options, **variables):
        """Returns the statistics of a run on this machine."""
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False,
                "roles": [{"role": "virt_compact", "virt_compact_disks": [self.disk],
                           "virt_compact_command": PROGRAM, **variables}]}
        with open(self.playbook, "w", encoding="utf-8") as file:
            json.dump([play], file)
        environment = {**os.environ, "ANSIBLE_ROLES_PATH": os.path.join(ANSIBLE, "roles"), "HOME": self.folder,
                       "ANSIBLE_LOCALHOST_WARNING": "false",
                       "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false", "LC_ALL": "C.UTF-8",
                       "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
                       "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
        done = subprocess.run(["ansible-playbook", *options, self.playbook], cwd=self.folder, env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        recap = re.search(r"^localhost +: (.*)$", done.stdout, re.M)
        self.assertIsNotNone(recap, done.stdout + done.stderr)
        stats = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", recap[1])}
        self.assertEqual((done.returncode == 0), stats["failed"] == 0, done.stdout)
        return stats

    def test_check_mode_tells_the_change_and_changes_nothing(self):
        before = content(self.disk)
        stats = self.run_role("--check")
        self.assertEqual((stats["failed"], stats["changed"]), (0, 1))
        self.assertEqual(content(self.disk), before)
        self.assertFalse(os.path.exists(self.disk + ".bak"))

    def test_a_second_run_changes_nothing(self):
        before = content(self.disk)
        self.assertEqual(self.run_role()["changed"], 1)
        self.assertEqual(content(self.disk + ".bak"), before)
        self.assertLess(os.path.getsize(self.disk), len(before) // 2)
        after = content(self.disk)
        # With the old disk, and without it.
        for _ in range(2):
            stats = self.run_role()
            self.assertEqual((stats["failed"], stats["changed"]), (0, 0))
            self.assertEqual(content(self.disk), after)
            if os.path.exists(self.disk + ".bak"):
                os.remove(self.disk + ".bak")

    def test_old_disks_are_removed_after_their_time(self):
        self.run_role()
        self.assertEqual(self.run_role(virt_compact_keep_days=1)["changed"], 0)
        self.assertTrue(os.path.exists(self.disk + ".bak"))
        self.assertEqual(self.run_role("--check", virt_compact_keep_days=0)["changed"], 1)
        self.assertTrue(os.path.exists(self.disk + ".bak"))
        self.assertEqual(self.run_role(virt_compact_keep_days=0)["changed"], 1)
        self.assertFalse(os.path.exists(self.disk + ".bak"))

    def test_a_gain_that_is_too_small_changes_nothing(self):
        self.assertEqual(self.run_role(virt_compact_minimum_gain="95%")["changed"], 0)

    def test_a_disk_that_is_missing_fails(self):
        os.remove(self.disk)
        self.assertEqual(self.run_role()["failed"], 1)

    def test_lint(self):
        subprocess.run(["yamllint", "-s", "-c", os.path.join(SOURCE, ".yamllint"), ANSIBLE], check=True)
        copy = os.path.join(self.folder, "ansible")
        shutil.copytree(ANSIBLE, copy)
        done = subprocess.run(["ansible-lint", "--offline", "--nocolor", "--strict", "."], cwd=copy, text=True,
                              env={**os.environ, "HOME": self.folder}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
