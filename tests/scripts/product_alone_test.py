"""Checks that the product builds without the tests' dependencies: product_alone_test.py SOURCE."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

SOURCE = sys.argv[1]

# Stands for a machine without Catch2.
PKG_CONFIG = """#!/bin/sh
case " $* " in *catch2*) exit 1 ;; esac
exec pkg-config "$@"
"""


def output(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def packages(*options):
    return set(output(os.path.join(SOURCE, "scripts/deps"), "--list", *options).split())


class ProductAlone(unittest.TestCase):
    def test_what_running_needs_has_no_test_packages(self):
        run, everything = packages("--run"), packages("--run", "--test")
        self.assertLess(run, everything)
        for name in ("catch2", "qemu-utils", "guestfs-tools", "ntfs-3g", "udftools"):
            self.assertIn(name, everything - run)
        self.assertEqual(packages(), run)

    def test_without_catch2_all_but_the_tests_is_set_up(self):
        with tempfile.TemporaryDirectory() as folder:
            wrapper = os.path.join(folder, "pkg-config-without-catch2")
            with open(wrapper, "w", encoding="ascii") as file:
                file.write(PKG_CONFIG)
            os.chmod(wrapper, 0o755)
            build = os.path.join(folder, "build")
            environment = {**os.environ, "PKG_CONFIG": wrapper}
            told = output("meson", "setup", build, SOURCE, env=environment)
            self.assertIn("Run-time dependency catch2 found: NO", told)
            targets = json.loads(output("meson", "introspect", "--targets", build))
            names = {target["name"] for target in targets}
            self.assertLess({"virt-compact", "nbdkit-qcow2-plugin", "product"}, names)
            tests = os.path.join(SOURCE, "tests")
            self.assertEqual([target["name"] for target in targets
                              if target["defined_in"].startswith(tests)], [])
            output("ninja", "-C", build, "-n", "product")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
