"""Runs the completions of zsh and fish in these shells: shells_test.py SOURCE VIRT_COMPACT."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE, PROGRAM = sys.argv[1], os.path.abspath(sys.argv[2])
TOOL = os.path.join(SOURCE, "tool")
ENGINE = os.path.join(TOOL, "virt-compact.bash")
PATIENCE = 60  # seconds, for a machine under load


def script(name, to):
    with open(os.path.join(TOOL, name), encoding="utf-8") as file:
        text = file.read()
    with open(to, "w", encoding="utf-8") as file:
        file.write(text.replace("@ENGINE@", ENGINE))


class Folder:
    """Disks to complete, and a virsh that knows two domains."""

    def __init__(self, path):
        self.path = path
        self.bin = os.path.join(path, ".bin")
        os.mkdir(self.bin)
        os.symlink(PROGRAM, os.path.join(self.bin, "virt-compact"))
        virsh = os.path.join(self.bin, "virsh")
        with open(virsh, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\nprintf 'web\\nmail\\n\\n'\n")
        os.chmod(virsh, 0o755)
        self.environment = {**os.environ, "HOME": path, "LC_ALL": "C.UTF-8", "TERM": "dumb",
                            "PATH": self.bin + ":" + os.environ["PATH"]}
        disk = os.path.join(path, "disk one.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"], check=True)
        for name in ("before", "behind it", "later"):
            subprocess.run(["qemu-img", "snapshot", "-c", name, disk], check=True)


class Fish:
    def __init__(self, folder):
        self.folder = folder
        script("virt-compact.fish.in", os.path.join(folder.path, ".completion.fish"))

    def offers(self, line):
        done = subprocess.run(
            ["fish", "--no-config", "-c", "source .completion.fish; complete -C $argv[1]", line],
            cwd=self.folder.path, env=self.folder.environment, text=True, check=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=PATIENCE)
        assert done.stderr == "", done.stderr
        return sorted(line.split("\t")[0] for line in done.stdout.splitlines())

    def description(self, line):
        out = subprocess.run(
            ["fish", "--no-config", "-c", "source .completion.fish; complete -C $argv[1]", line],
            cwd=self.folder.path, env=self.folder.environment, text=True, check=True,
            stdout=subprocess.PIPE, timeout=PATIENCE).stdout
        return out.strip().split("\t")[-1]

    def close(self):
        pass


ZSH_SETUP = r"""
PS1= PS2= RPS1=; unsetopt prompt_cr zle_bracketed_paste 2>/dev/null; unset zle_bracketed_paste
fpath=({folder}/.functions $fpath); autoload -U compinit; compinit -u -D
zstyle ':completion:all-matches:*' completer _all_matches _complete
zstyle ':completion:all-matches:*' insert true
zstyle ':completion:all-matches:*' old-matches false
zle -C all-matches complete-word _generic
dump() {{ print -r -- "$BUFFER" >{folder}/.out.new; mv {folder}/.out.new {folder}/.out; BUFFER= }}
zle -N dump
bindkey '^A' all-matches; bindkey '^E' dump
cd {folder}; : >{folder}/.ready
"""


class Zsh:
    """An interactive zsh.  Ctrl-A inserts all matches, Ctrl-E writes the line to a file."""

    def __init__(self, folder):
        self.folder = folder
        functions = os.path.join(folder.path, ".functions")
        os.mkdir(functions)
        script("virt-compact.zsh.in", os.path.join(functions, "_virt-compact"))
        pid, self.terminal = pty.fork()
        if pid == 0:
            os.execvpe("zsh", ["zsh", "-f", "-i"], folder.environment)
        self.pid = pid
        setup = os.path.join(folder.path, ".setup.zsh")
        with open(setup, "w", encoding="utf-8") as file:
            file.write(ZSH_SETUP.format(folder=folder.path))
        self.type("source " + setup + "\n", ".ready")

    def type(self, text, until):
        """Types the text, and waits for a file."""
        path = os.path.join(self.folder.path, until)
        os.write(self.terminal, text.encode())
        end = time.monotonic() + PATIENCE
        told = b""
        while not os.path.exists(path):
            if time.monotonic() > end:
                raise AssertionError("zsh does not answer: " + repr(told))
            if select.select([self.terminal], [], [], 0.05)[0]:
                told += os.read(self.terminal, 4096)

    def offers(self, line):
        out = os.path.join(self.folder.path, ".out")
        if os.path.exists(out):
            os.remove(out)
        self.type(line + "\x01\x05", ".out")
        with open(out, encoding="utf-8") as file:
            text = file.read().rstrip("\n")
        before = line[:line.rfind(" ") + 1]
        assert text.startswith(before), text
        # Blanks inside of names are quoted.
        words = re.split(r"(?<!\\) ", text[len(before):].strip())
        # A word that nothing matches stays as it is.
        return sorted({it.replace("\\", "") for it in words if it and it != line.split(" ")[-1]})

    def close(self):
        os.close(self.terminal)
        os.waitpid(self.pid, 0)


class Shells(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Folder(temporary.name)

    def check(self, shell):
        self.addCleanup(shell.close)

        def offers(line, *expected):
            with self.subTest(line=line):
                self.assertEqual(shell.offers("virt-compact " + line), sorted(expected))

        offers("me", "measure")
        offers("-q com", "compact", "compare")
        offers("copy --c", "--cluster-size", "--color", "--compression", "--connections")
        offers("copy -f ", "qcow2", "raw")
        offers("copy --color=a", "--color=always", "--color=auto")
        offers("check -r ", "all", "leaks")
        offers("copy -o comp", "compat=", "compression_level=", "compression_type=")
        offers("copy -o compat=1.1,lazy_refcounts=o", "compat=1.1,lazy_refcounts=off",
               "compat=1.1,lazy_refcounts=on")
        offers("trim --drop pagefile,s", "pagefile,shadows", "pagefile,swap", "pagefile,swapfile")
        offers("copy --threads ")
        offers("info d", "disk one.qcow2")
        offers("snapshot 'disk one.qcow2' -d be", "before", "behind it")
        offers("copy 'disk one.qcow2' --snapshot l", "later")
        offers("tune w", "web")
        offers("optimize --live m", "mail")
        offers("info m")

    def test_zsh(self):
        self.check(Zsh(self.folder))

    def test_fish(self):
        fish = Fish(self.folder)
        self.check(fish)
        self.assertEqual(fish.description("virt-compact measu"),
                         "compute or estimate the size of a copy")
        self.assertEqual(fish.description("virt-compact copy --verif"),
                         "read DST back and compare it with SRC")

    def test_the_shells_are_installed(self):
        for name in ("zsh", "fish", "bash"):
            self.assertIsNotNone(shutil.which(name), name)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
