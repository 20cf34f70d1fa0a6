"""The machine on which recipes run: a folder, commands of this build, and namespaces of its own."""

import os
import shlex
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
# What a recipe's test may call before and after the commands of the page.
FUNCTIONS = r"""
contents() { debugfs -R "cat $2" "$1" 2>/dev/null; }
# unchanged RAW: the guest's filesystem is intact, and its file is what it was.
unchanged() {
  e2fsck -fn "$1" >/dev/null 2>&1
  contents "$1" kept | cmp - ~/.kept
}
# good IMAGE: QEMU finds no errors, and the guest's files are unchanged.
good() {
  qemu-img check -q "$1"
  qemu-img convert -O raw "$1" ~/.raw
  unchanged ~/.raw
}
same_disk() { qemu-img compare -q "$1" "$2"; }
size() { stat -c %s "$1"; }
smaller() { [ "$(size "$1")" -lt "$(size "$2")" ]; }
# waits_for COMMAND…: until it succeeds.
waits_for() {
  local i
  for i in {1..600}; do
    ! "$@" || return 0
    sleep 0.1
  done
  echo "$* does not succeed" >&2
  return 1
}
"""


def wrapper(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write("#!/bin/bash\n" + text)
    os.chmod(path, 0o755)


class Machine:
    def __init__(self, folder, built):
        """`built` has the paths of the command, and of modules of nbdkit by name."""
        self.home = folder
        os.chmod(folder, 0o755)
        self.bin = os.path.join(folder, ".bin")
        os.mkdir(self.bin)
        os.symlink(built["virt-compact"], os.path.join(self.bin, "virt-compact"))
        # nbdkit finds installed modules by name; this one also finds those of this build.
        cases = ""
        for word, path in built.items():
            if word != "virt-compact":
                option = "--filter=" if word.startswith("--filter=") else ""
                cases += f"    {word}) words+=({option}{shlex.quote(path)}) ;;\n"
        wrapper(os.path.join(self.bin, "nbdkit"),
                'words=()\nfor word in "$@"; do\n  case $word in\n' + cases +
                '    *) words+=("$word") ;;\n  esac\ndone\nexec /usr/bin/nbdkit "${words[@]}"\n')
        self.environment = {**os.environ, "HOME": folder, "LC_ALL": "C.UTF-8", "TERM": "dumb",
                            "TMPDIR": self.make_folder(".tmp"),
                            "PATH": self.bin + ":" + os.environ["PATH"] + ":/usr/sbin:/sbin",
                            "LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}

    def make_folder(self, name):
        path = os.path.join(self.home, name)
        os.makedirs(path, exist_ok=True)
        return path

    def run(self, script):
        """Runs a script, and ends all of its processes. Returns the finished process, with both outputs in stdout."""
        path = os.path.join(self.home, ".script")
        with open(path, "w", encoding="utf-8") as file:
            file.write(FUNCTIONS + script)
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        return subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child",
             "--mount-proc", *user, "python3", os.path.join(HERE, "inside.py"), self.home, path],
            cwd=self.home, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
