"""Test cases that run the recipes of the manual page."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from machine import Machine
from page import recipes_of


def run(*command, folder):
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})


def make_disk(folder):
    """Makes the disk of a guest, vm.qcow2: ext4 with a file, and the data of a file that was deleted."""
    os.makedirs(os.path.join(folder, "tree"))
    for name, size in ((".kept", 3 << 20), ("gone", 12 << 20)):
        with open(os.path.join(folder, "tree", name), "wb") as file:
            # Half of it is compressible.
            file.write(b"".join(os.urandom(2048) + bytes(2047) + b"." for _ in range(size // 4096)))
    shutil.copy(os.path.join(folder, "tree", ".kept"), folder)
    os.rename(os.path.join(folder, "tree", ".kept"), os.path.join(folder, "tree", "kept"))
    run("truncate", "-s", "48M", "raw", folder=folder)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", "tree", "raw", folder=folder)
    run("debugfs", "-w", "-R", "rm gone", "raw", folder=folder)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "raw", "vm.qcow2", folder=folder)
    os.remove(os.path.join(folder, "raw"))
    shutil.rmtree(os.path.join(folder, "tree"))


class PageCase(unittest.TestCase):
    """A test for each recipe of the page. A subclass sets `page` and `built`."""
    page: str
    built: dict
    tested: set = set()  # titles

    @classmethod
    def setUpClass(cls):
        cls.recipes = recipes_of(cls.page)
        cls.made = tempfile.TemporaryDirectory(prefix="virt-compact-test-")
        make_disk(cls.made.name)

    @classmethod
    def tearDownClass(cls):
        cls.made.cleanup()

    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="virt-compact-test-")
        self.addCleanup(temporary.cleanup)
        self.machine = Machine(temporary.name, self.built)
        self.home = temporary.name
        self.make_files()

    def make_files(self):
        for name in os.listdir(self.made.name):
            shutil.copy(os.path.join(self.made.name, name), self.home)

    def recipe(self, title, before="", after="", each="", exits=None, elsewhere=()):
        """Runs the commands of a recipe, as the page has them, between two scripts, and returns the output.

        `each`: alternatives. The disk is as at first before each block, and this script checks each result.
        `exits`: the exit statuses of blocks that have another one than 0. `elsewhere`: the blocks that are
        not typed on this machine, or are no commands.
        """
        recipe = self.recipes[title]
        self.assertLessEqual(set(elsewhere), {it.text for it in recipe.blocks})
        script = before + "\n"
        commands = 0
        for number, block in enumerate(recipe.blocks):
            if block.text in elsewhere:
                continue
            if block.file:
                with open(os.path.join(self.home, os.path.basename(block.file)), "w", encoding="utf-8") as file:
                    file.write(block.text)
                continue
            commands += 1
            if each:
                script += f"find . -maxdepth 1 -name '*.qcow2*' -delete; cp {self.made.name}/*.qcow2 .\n{before}\n"
            status = (exits or {}).get(number, 0)
            lines = f"printf '+ %s\\n' {number}\n{block.text}"
            if status:
                lines = f"( {lines} ) && exit 99 || [ $? = {status} ]\n"
            script += lines + each + "\n"
        self.assertGreater(commands, 0, title)
        done = self.machine.run(script + after + "\n")
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout


def start():
    """Runs the tests: PAGE VIRT_COMPACT MODULE... [-- NAME...]. A MODULE is a plugin or a filter of nbdkit."""
    words, names = sys.argv[1:], []
    if "--" in words:
        words, names = words[:words.index("--")], words[words.index("--") + 1:]
    PageCase.page = words[0]
    PageCase.built = {"virt-compact": os.path.abspath(words[1])}
    for path in words[2:]:
        name = os.path.basename(path).removeprefix("nbdkit-").rsplit("-", 1)[0]
        PageCase.built[("--filter=" if path.endswith("-filter.so") else "") + name] = os.path.abspath(path)
    unittest.main(argv=sys.argv[:1] + names)
