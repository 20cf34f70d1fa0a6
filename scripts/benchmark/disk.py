"""A disk that looks used: two writers fill its filesystem, and half of the files are deleted."""

import os
import random
import shutil
import subprocess
import threading
import time

# Folders that have many files on every Debian system.
TREES = ("/usr/share", "/usr/lib")


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


class Mounted:
    """The disk in `image`, formatted as ext4, and mounted at .mount within a `with` statement."""

    def __init__(self, image, folder):
        self.image = image
        self.export = os.path.join(folder, "export")
        self.mount = os.path.join(folder, "mount")

    def __enter__(self):
        open(self.export, "w").close()
        os.mkdir(self.mount)
        self.daemon = subprocess.Popen([
            "qemu-storage-daemon",
            "--blockdev", f"driver=file,node-name=file,filename={self.image},discard=unmap",
            "--blockdev", "driver=qcow2,node-name=disk,file=file,discard=unmap",
            "--export", f"type=fuse,id=disk,node-name=disk,mountpoint={self.export},writable=on"])
        deadline = time.monotonic() + 30
        while os.stat(self.export).st_size == 0:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("qemu-storage-daemon does not serve the disk")
            time.sleep(0.05)
        self.loop = subprocess.run(["losetup", "--find", "--show", self.export], check=True,
                                   capture_output=True, text=True).stdout.strip()
        run("mkfs.ext4", "-q", "-E", "nodiscard", self.loop)
        run("mount", self.loop, self.mount)
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", self.mount], check=False)
        subprocess.run(["losetup", "--detach", self.loop], check=False)
        self.daemon.terminate()
        self.daemon.wait()
        os.remove(self.export)
        os.rmdir(self.mount)


def files_below(tree):
    for folder, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def fill(target, tree, limit):
    """Copies files of `tree` into `target`, repeatedly if necessary, until they have `limit` bytes."""
    os.mkdir(target)
    written = 0
    for round_number in range(100):
        for number, path in enumerate(files_below(tree)):
            if written >= limit:
                return
            copy = os.path.join(target, f"{round_number}-{number}")
            try:
                shutil.copyfile(path, copy)
            except OSError:
                continue
            written += os.path.getsize(copy)


def make(image, size, folder):
    """Makes `image`, a disk of `size` bytes that is about half full and was fuller before."""
    run("qemu-img", "create", "-q", "-f", "qcow2", image, str(size))
    chance = random.Random(1)
    with Mounted(image, folder) as disk:
        for step in range(3):
            writers = [
                threading.Thread(target=fill, args=(
                    os.path.join(disk.mount, f"{step}-{number}"), tree, size // 8))
                for number, tree in enumerate(TREES)]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join()
            os.sync()
            for path in list(files_below(disk.mount)):
                if chance.random() < 0.35:
                    os.remove(path)
        # Incompressible data, and zeros that are stored.
        with open(os.path.join(disk.mount, "noise"), "wb") as noise:
            for _ in range(size // 64 >> 20):
                noise.write(os.urandom(1 << 20))
        with open(os.path.join(disk.mount, "zeros"), "wb") as zeros:
            for _ in range(size // 64 >> 20):
                zeros.write(bytes(1 << 20))
        os.sync()
