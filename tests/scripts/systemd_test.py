"""Checks the units of systemd and the example of a policy: systemd_test.py SERVICE TIMER POLICY VIRT_COMPACT."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SERVICE, TIMER, POLICY, PROGRAM = (os.path.abspath(it) for it in sys.argv[1:5])


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


class Systemd(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="virt-compact-test-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o644)
        return path

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    def test_units_are_valid(self):
        # The command is not installed yet.
        service = re.sub(r"^ExecStart=\S+", "ExecStart=" + PROGRAM, read(SERVICE), flags=re.M)
        units = [self.path("virt-compact-nightly.service", service),
                 self.path("virt-compact-nightly.timer", read(TIMER))]
        done = run("systemd-analyze", "verify", "--man=no", *units)
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        # A key that systemd does not know is found.
        self.path("virt-compact-nightly.service", service + "NoSuchKey=1\n")
        self.assertIn("NoSuchKey", run("systemd-analyze", "verify", "--man=no", *units).stdout)

    def test_the_service_takes_the_policy_that_it_waits_for(self):
        text = read(SERVICE)
        self.assertNotIn("@", text)
        policy = re.search(r"^ConditionPathExists=(.*)$", text, re.M)[1]
        self.assertRegex(text, rf"(?m)^ExecStart=/\S+/virt-compact nightly --policy {policy}$")
        self.assertIn(policy, read(POLICY))

    def test_the_example_does_nothing_until_it_is_changed(self):
        done = run(PROGRAM, "nightly", "--check", "--policy", self.path("policy", read(POLICY)))
        self.assertEqual(done.returncode, 1)
        self.assertIn("names no disks", done.stdout)

    def test_each_setting_of_the_example_is_accepted(self):
        text = re.sub(r"^#(?=[a-z\[])", "", read(POLICY), flags=re.M)
        keys = set(re.findall(r"^([a-z_]+) =", text, re.M))
        done = run(PROGRAM, "nightly", "--check", "--policy", self.path("policy", text))
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        # The example has all keys that the command knows.
        known = set()
        for line in ("no = 1", "[[domain]]\nno = 1", "[[disk]]\nno = 1"):
            told = run(PROGRAM, "nightly", "--check", "--policy", self.path("policy", line)).stdout
            known |= set(re.search(r"the keys are (.*)", told)[1].split(", "))
        self.assertEqual(keys, known - {"domain", "disk"})


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
