"""Disks to measure: one that looks used, and one of 1 TiB that holds only metadata."""

import os
import random
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass

# Folders that have many files on every Debian system.
TREES = ("/usr/share", "/usr/lib")

PARTITION = 1 << 20  # offset of the only partition, bytes
TIB = 1 << 40


@dataclass
class Filesystem:
    type: str  # of the partition, in MBR
    make: tuple  # a command; the device is added
    mount: tuple  # a command; the device and the folder are added


# The commands neither discard nor write zeros in the background.
FILESYSTEMS = {
    "ext4": Filesystem("83", ("mkfs.ext4", "-q", "-E", "nodiscard"),
                       ("mount", "-t", "ext4", "-o", "noinit_itable")),
    "xfs": Filesystem("83", ("mkfs.xfs", "-q", "-K"), ("mount", "-t", "xfs")),
    "ntfs": Filesystem("7", ("mkntfs", "-q", "-f", "-p", str(PARTITION // 512), "-H", "255", "-S", "63"),
                       ("ntfs-3g",)),
}


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


class Mounted:
    """The disk in `image`, partitioned, formatted, and mounted at .mount within a `with` statement."""

    def __init__(self, image, folder, filesystem):
        self.image = image
        self.filesystem = FILESYSTEMS[filesystem]
        self.export = os.path.join(folder, "export")
        self.mount = os.path.join(folder, "mount")
        self.loop = None

    def __enter__(self):
        open(self.export, "w").close()
        os.mkdir(self.mount)
        self.daemon = subprocess.Popen([
            "qemu-storage-daemon",
            "--blockdev", f"driver=file,node-name=file,filename={self.image},discard=unmap",
            "--blockdev", "driver=qcow2,node-name=disk,file=file,discard=unmap",
            "--export", f"type=fuse,id=disk,node-name=disk,mountpoint={self.export},writable=on"])
        try:
            self.set_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def set_up(self):
        deadline = time.monotonic() + 30
        while os.stat(self.export).st_size == 0:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("qemu-storage-daemon does not serve the disk")
            time.sleep(0.05)
        subprocess.run(["sfdisk", "-q", "--label", "dos", self.export], check=True, text=True,
                       input=f"{PARTITION // 512},,{self.filesystem.type}\n")
        self.loop = subprocess.run(
            ["losetup", "--find", "--show", "--offset", str(PARTITION), self.export], check=True,
            capture_output=True, text=True).stdout.strip()
        run(*self.filesystem.make, self.loop)
        run(*self.filesystem.mount, self.loop, self.mount)

    def __exit__(self, *_):
        if os.path.ismount(self.mount):
            subprocess.run(["umount", self.mount], check=False)
        if self.loop:
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


def make(image, size, folder, filesystem):
    """Makes `image`, a disk of `size` bytes that is about half full and was fuller before."""
    run("qemu-img", "create", "-q", "-f", "qcow2", image, str(size))
    chance = random.Random(1)
    with Mounted(image, folder, filesystem) as disk:
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


def make_large(image, folder, filesystem):
    """Makes `image`, a disk of 1 TiB that holds only metadata.

    In ext4 and XFS, allocates files without writing them, and deletes every third: the free space
    is in many pieces, and all groups are initialized.
    """
    run("qemu-img", "create", "-q", "-f", "qcow2", image, str(TIB))
    with Mounted(image, folder, filesystem) as disk:
        if filesystem == "ntfs":
            return  # ntfs-3g has no fallocate; the bitmap is read whole in any case
        names = [os.path.join(disk.mount, str(number)) for number in range(3000)]
        for name in names:
            with open(name, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, 256 << 20)
        for name in names[::3]:
            os.remove(name)
        os.sync()
