"""Checks the messages of scripts/test-on-debian before it makes a root: test_on_debian_test.py SOURCE."""

import os
import subprocess
import sys
import tempfile
import unittest

SOURCE = sys.argv[1]


def run(script, *arguments):
    return subprocess.run([os.path.join(SOURCE, "scripts", script), *arguments],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)


class TestOnDebian(unittest.TestCase):
    def refused(self, why, *arguments):
        done = run("test-on-debian", *arguments)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(why, done.stderr)

    def test_help_names_its_options(self):
        done = run("test-on-debian", "--help")
        self.assertEqual(done.returncode, 0)
        for word in ("--keep", "--root", "trixie", "bookworm"):
            self.assertIn(word, done.stdout)

    def test_command_lines_that_say_too_little(self):
        self.refused("which suite?")
        self.refused("'sid' is neither an option nor a suite", "sid")
        self.refused("'--fast' is neither", "--fast", "trixie")
        self.refused("--root needs a folder", "--root")

    def test_a_folder_that_holds_something_else_stays_as_it_is(self):
        with tempfile.TemporaryDirectory() as folder:
            kept = os.path.join(folder, "kept")
            with open(kept, "w", encoding="ascii") as file:
                file.write("mine")
            self.refused("holds no root that a run of this script has completed", "--root", folder, "trixie")
            self.assertEqual(os.listdir(folder), ["kept"])

    def test_a_root_of_another_suite_is_not_used(self):
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "etc"))
            mark = os.path.join(folder, "etc/virt-compact-test-root")
            with open(mark, "w", encoding="ascii") as file:
                file.write("bookworm\n")
            self.refused("holds a root of Debian bookworm, not trixie", "--root", folder, "trixie")
            self.assertEqual(os.listdir(folder), ["etc"])

    def test_it_needs_nothing_to_build_with(self):
        packages = run("deps", "--debian", "--list").stdout.split()
        self.assertIn("debootstrap", packages)
        self.assertNotIn("g++", packages)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
