"""Checks that the Portuguese pages are complete and up to date: translate_test.py SOURCE.

`scripts/translate` brings them up to date, and prints the strings that need a translator.
"""

import os
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.abspath(sys.argv[1])
PROGRAM = os.path.join(SOURCE, "scripts", "translate.py")
sys.path.insert(0, os.path.dirname(PROGRAM))

from translate import README, content, copy_sources  # noqa: E402


def translate(folder, *options):
    return subprocess.run([sys.executable, PROGRAM, *options, folder], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)


class Translation(unittest.TestCase):
    def test_is_complete(self):
        done = translate(SOURCE, "--check")
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_changes_are_found(self):
        with tempfile.TemporaryDirectory() as folder:
            def change(page, old, new):
                path = os.path.join(folder, page)
                text = content(path)
                self.assertIn(old, text)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text.replace(old, new, 1))

            copy_sources(SOURCE, folder)
            self.assertEqual(translate(folder).returncode, 0)
            self.assertEqual(content(folder, README), content(SOURCE, README))
            # An example needs no translator, but the catalogue must know it.
            page = os.path.join("man", "virt-compact-recipes.pod")
            change(page, " virt-compact check vm.qcow2\n", " virt-compact check --deep vm.qcow2\n")
            self.assertEqual(translate(folder, "--check").returncode, 1)
            self.assertEqual(translate(folder).returncode, 0)
            self.assertEqual(translate(folder, "--check").returncode, 0)
            # Prose does.
            change(page, "The disk is intact", "The entire disk is intact")
            change("README.md", "A QCOW2 disk grows", "Each QCOW2 disk grows")
            done = translate(folder)
            self.assertEqual(done.returncode, 1)
            self.assertIn("The entire disk is intact", done.stdout)
            self.assertIn("+ Each QCOW2 disk grows", done.stdout)
            self.assertIn("- A QCOW2 disk grows", done.stdout)
            self.assertIn("2 strings need", done.stdout)

    def test_a_changed_result_is_found(self):
        with tempfile.TemporaryDirectory() as folder:
            copy_sources(SOURCE, folder)
            with open(os.path.join(folder, README), "w", encoding="utf-8") as file:
                file.write(content(SOURCE, README) + "\n")
            done = translate(folder, "--check")
            self.assertEqual(done.returncode, 1)
            self.assertIn("not up to date", done.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
