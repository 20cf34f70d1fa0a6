"""Installs the built product into a folder, and removes it again; reads Meson's log: install_test.py BUILD."""

import os
import re
import subprocess
import sys
import tempfile
import unittest

BUILD = os.path.abspath(sys.argv[1])


def files_below(folder):
    return sorted(os.path.relpath(os.path.join(at, it), folder)
                  for at, _, names in os.walk(folder) for it in names)


class Install(unittest.TestCase):
    def test_install_and_uninstall(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", folder],
                           check=True, stdout=subprocess.DEVNULL)
            installed = files_below(folder)

            def one(end):
                found = [it for it in installed if it.endswith(end)]
                self.assertEqual(len(found), 1, (end, found))
                return os.path.join(folder, found[0])

            told = subprocess.run([one("bin/virt-compact"), "--version"], check=True, text=True,
                                  stdout=subprocess.PIPE).stdout
            self.assertRegex(told, r"^virt-compact \d")
            for end in ("nbdkit-qcow2-plugin.so", "nbdkit-qcow2-filter.so", "nbdkit-detect-zeroes-filter.so",
                        "nbdkit-coalesce-discard-filter.so", "nbdkit-checked-nbd-plugin.so",
                        "share/man/man1/virt-compact-optimize.1", "share/man/man7/virt-compact-recipes.7",
                        "systemd/system/virt-compact-nightly.timer", "share/doc/virt-compact/examples/nightly.toml",
                        "man/pt_BR/man1/virt-compact-optimize.1", "man/pt_BR/man7/virt-compact-recipes.7"):
                one(end)
            # The completions for zsh and fish name the one for bash, as it is installed.
            bash = one("bash-completion/completions/virt-compact")
            for end in ("_virt-compact", "virt-compact.fish"):
                with open(one(end), encoding="utf-8") as file:
                    named = re.search(r"bash '([^']*)'", file.read())[1]
                self.assertEqual(folder + named, bash)
            # The service runs the command where it is installed.
            with open(one("systemd/system/virt-compact-nightly.service"), encoding="utf-8") as file:
                named = re.search(r"^ExecStart=(\S*)", file.read(), re.M)[1]
            self.assertEqual(folder + named, one("bin/virt-compact"))
            plugin = one("nbdkit-qcow2-plugin.so")
            told = subprocess.run(["nbdkit", plugin, "--version"], check=True, text=True,
                                  stdout=subprocess.PIPE).stdout
            self.assertIn("qcow2", told)

            subprocess.run(["meson", "--internal", "uninstall"], cwd=BUILD, check=True,
                           stdout=subprocess.DEVNULL)
            self.assertEqual(files_below(folder), [])

    def test_no_keyword_of_meson_is_given_twice(self):
        # Meson takes one of the two, without an error.
        with open(os.path.join(BUILD, "meson-logs", "meson-log.txt"), encoding="utf-8") as file:
            found = [it for it in file if "defined multiple times" in it]
        self.assertEqual(found, [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
