"""Compares the speed of virt-compact with other programs: see scripts/bench --help."""

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import disk
import measure
import rows

GIB = 1 << 30


def say(text):
    print(text, file=sys.stderr, flush=True)


def check_copy(path, source=None):
    """Checks with QEMU that the copy has no errors, and is equal to `source` if it is given."""
    check = subprocess.run(["qemu-img", "check", "-q", path], capture_output=True, check=False)
    if check.returncode not in (0, 3):
        raise measure.Failed(f"{path}: {check.stderr.decode()}")
    if source is None:
        return
    same = subprocess.run(["qemu-img", "compare", "-q", source, path], capture_output=True,
                          check=False)
    if same.returncode != 0:
        raise measure.Failed(f"{path}: differs from {source}")


def listening(path):
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


class Bench:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.runs = options.runs or (2 if options.quick else 3)
        self.disk = options.disk or os.path.join(folder, "disk.qcow2")
        self.own_disk = None  # filesystem and size of the present own disk
        self.mounted = ""  # the filesystem of the present mount
        self.loop = ""  # its device
        self.results = []
        self.size = 0  # the size of the disk to copy, once the disk exists

    def runs_of(self, row):
        return self.options.runs or (1 if getattr(row, "once", False) else self.runs)

    def rows(self):
        named = [row for row in rows.ALL if not self.options.only or row.name in self.options.only]
        return [row for row in named if not self.options.quick or getattr(row, "gib", (0, 1))[1]]

    def words(self, out, extra="extra.qcow2"):
        folder = self.mount_point() if self.mounted else self.folder
        path = lambda name: os.path.join(folder, name)
        own = self.own_disk or self.mounted
        return {"disk": path("own.qcow2") if own else self.disk, "out": path(out), "extra": path(extra),
                "socket": path("socket"), "size": self.size,
                "vc": os.path.join(self.options.build, "tool/virt-compact"),
                "plugin": os.path.join(self.options.build, "plugin/nbdkit-qcow2-plugin.so")}

    def make_disk(self):
        size = (2 if self.options.quick else 20) * GIB
        if not self.options.disk:
            self.make(self.disk, size, "ext4")
        info = subprocess.run(["qemu-img", "info", "-U", "--output=json", self.disk], check=True,
                              capture_output=True)
        self.size = json.loads(info.stdout)["virtual-size"]
        measure.warm(self.disk)

    def make(self, image, size, filesystem):
        need = size * 3
        if shutil.disk_usage(self.folder).free < need:
            raise SystemExit(f"scripts/bench: error: {self.folder}: {need // GIB} GiB must be free")
        say(f"making a disk of {size // GIB} GiB with {filesystem}")
        disk.make(image, size, self.folder, filesystem)

    def use_disk(self, wanted):
        """Makes the disk of a row, a filesystem and a size; None: the row has none of its own."""
        if wanted == self.own_disk:
            return
        self.drop_own_disk()
        if wanted:
            self.own_disk = wanted
            image = self.words("none")["disk"]
            filesystem, size = wanted
            if size == disk.TIB:
                say(f"making a disk of 1 TiB with {filesystem}")
                disk.make_large(image, self.folder, filesystem)
            else:
                self.make(image, size, filesystem)
            measure.warm(image)

    def mount_point(self):
        return os.path.join(self.folder, "mounted")

    def use_mount(self, filesystem):
        """Mounts a filesystem for the disk and the copies of a row; empty: the row has none."""
        if not filesystem or filesystem == self.mounted:
            return
        self.unmount()
        image = os.path.join(self.folder, "filesystem")
        with open(image, "wb") as file:
            file.truncate(4 * os.stat(self.disk).st_size + GIB)
        disk.run(f"mkfs.{filesystem}", "-q", image)
        os.makedirs(self.mount_point(), exist_ok=True)
        # Direct I/O, as on a real disk: otherwise the system caches all data twice, here and in the file.
        self.loop = subprocess.run(
            ["losetup", "--find", "--show", "--direct-io=on", image], check=True, capture_output=True,
            text=True).stdout.strip()
        self.mounted = filesystem
        disk.run("mount", self.loop, self.mount_point())
        own = self.words("none")["disk"]
        disk.run("cp", self.disk, own)
        disk.run("sync", "-f", own)
        measure.warm(own)

    def unmount(self):
        if self.mounted:
            self.mounted = ""
            if os.path.ismount(self.mount_point()):
                disk.run("umount", self.mount_point())
            disk.run("losetup", "--detach", self.loop)
            measure.remove(os.path.join(self.folder, "filesystem"))

    def drop_own_disk(self):
        if self.own_disk:
            measure.remove(self.words("none")["disk"])
        self.own_disk = None

    def copy_row(self, row):
        if not row.mounted:
            self.unmount()
        self.use_disk((row.filesystem, row.gib[self.options.quick] * GIB) if row.filesystem else None)
        self.use_mount(row.mounted)
        sides = {}
        sizes = {}
        if row.prepare:
            measure.timed(row.prepare.format(**self.words("none")))
        source = row.source.format(**self.words("none"))
        for turn in range(self.runs_of(row)):
            for side, command in (("ours", row.ours), ("peer", row.peer)):
                words = self.words(side + ".qcow2")
                measure.remove(words["out"])
                measure.remove(words["socket"])
                if self.mounted:  # the filesystem may free the blocks of removed files later
                    disk.run("sync", "-f", self.mount_point())
                writes = "{out}" in command
                if row.before:
                    measure.timed(row.before.format(**words), words["out"])
                seconds = measure.timed(command.format(**words), words["out"] if writes else None)
                sides.setdefault(side, []).append(seconds)
                if writes:
                    sizes[side] = os.stat(words["out"]).st_blocks * 512
                    if turn == 0 and row.check:
                        check_copy(words["out"], source if row.equal else None)
        peaks = {}
        for side, command in (("ours", row.ours), ("peer", row.peer)):
            words = self.words(side + ".qcow2")
            measure.remove(words["out"])
            measure.remove(words["socket"])
            if row.peak:
                peaks[side] = measure.peak_of(command.format(**words))
            measure.remove(words["out"])
        measure.remove(self.words("none")["extra"])
        return {"ours": sides["ours"], "peer": sides["peer"], "sizes": sizes, "peaks": peaks}

    def serve(self, side, image):
        address = os.path.join(self.folder, "socket")
        measure.remove(address)
        if side == "ours":
            command = ["nbdkit", "-f", "-U", address, self.words("none")["plugin"], image,
                       "detect-zeroes=unmap"]
        else:
            command = ["qemu-nbd", "-t", "-e", "16", "-f", "qcow2", "-k", address, "--discard=unmap",
                       "--detect-zeroes=unmap", image]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not listening(address):
            if server.poll() is not None or time.monotonic() > deadline:
                raise measure.Failed("the server does not start: " + " ".join(command))
            time.sleep(0.02)
        return server, address

    def write_row(self, row):
        size = (1 if self.options.quick else 4) * GIB
        part = size // 8
        image = os.path.join(self.folder, "written.qcow2")
        sides = {}
        sizes = {}
        for _ in range(self.runs):
            for side in ("ours", "peer"):
                measure.remove(image)
                disk.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", row.image, image, str(size))
                if row.filled:
                    disk.run("qemu-img", "bench", "-w", "-f", "qcow2", "-t", "writeback", "-s", "1M",
                             "-c", str(size >> 20), "-d", "8", image)
                    os.sync()
                server, address = self.serve(side, image)
                # The time includes the end of the server, because the server may delay work until then.
                begin = time.monotonic()
                done = subprocess.run(
                    ["fio", "--name=row", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={address}",
                     f"--size={size}", "--refill_buffers", "--randseed=7", "--allrandrepeat=1"]
                    + row.fio.format(part=part).split(), capture_output=True, check=False)
                server.send_signal(signal.SIGTERM)
                server.wait()
                subprocess.run(["sync", image], check=True)
                seconds = time.monotonic() - begin
                if done.returncode != 0:
                    raise measure.Failed(f"{row.name}: {done.stderr.decode()}")
                check = subprocess.run(["qemu-img", "check", "-q", image], check=False)
                if check.returncode != 0:
                    raise measure.Failed(f"{row.name}: qemu-img check returned {check.returncode}")
                sides.setdefault(side, []).append(seconds)
                sizes[side] = os.stat(image).st_blocks * 512
        measure.remove(image)
        return {"ours": sides["ours"], "peer": sides["peer"], "sizes": sizes, "peaks": {}}

    def limit_row(self, row):
        self.unmount()
        self.use_disk((row.filesystem, disk.TIB))
        command = row.ours.format(**self.words("none"))
        seconds = [measure.timed(command) for _ in range(self.runs)]
        return {"ours": seconds, "peaks": {"ours": measure.peak_of(command)}}

    def show_limit(self, row, result):
        seconds = statistics.median(result["ours"])
        mib = result["peaks"]["ours"] / 1024
        verdict = ("  missed" if seconds > row.seconds else "") + ("  large" if mib > row.mib else "")
        print(f"{row.name:<26}{seconds:9.2f}{'-':>9}{'-':>8}{row.seconds:6.0f}s  {'-':>8} {'-':>8}"
              f"  {mib:5.0f} {row.mib:4}M{verdict}", flush=True)

    def show(self, row, result):
        ours, peer = (statistics.median(result[side]) for side in ("ours", "peer"))
        found = measure.ratio(result["ours"], result["peer"])
        size = " ".join(f"{result['sizes'].get(side, 0) / 1e6:8.0f}" for side in ("ours", "peer"))
        peak = " ".join(f"{(result['peaks'].get(side) or 0) / 1024:5.0f}" for side in ("ours", "peer"))
        verdict = "" if found <= row.goal else "  missed"
        largest = getattr(row, "largest", 0)
        if largest and result["sizes"]["ours"] > largest * result["sizes"]["peer"]:
            verdict += "  larger"
        print(f"{row.name:<26}{ours:9.2f}{peer:9.2f}{found:8.2f}{row.goal:7.2f}  {size}  {peak}{verdict}",
              flush=True)

    def go(self):
        chosen = self.rows()
        if any(isinstance(row, rows.Row) and not row.filesystem for row in chosen):
            self.make_disk()
        print(f"{'row':<26}{'ours s':>9}{'peer s':>9}{'ratio':>8}{'goal':>7}  {'ours MB':>8} {'peer MB':>8}"
              f"  {'MiB':>5} {'MiB':>5}", flush=True)
        for row in chosen:
            if getattr(row, "mounted", "") and os.geteuid() != 0:
                say(f"{row.name}: skipped: only root can mount filesystems")
                continue
            say(f"{row.name}: {self.runs_of(row)} runs of each")
            if isinstance(row, rows.Limit):
                result = self.limit_row(row)
                self.show_limit(row, result)
                self.results.append({"row": row.name, "seconds": row.seconds, "mib": row.mib, **result})
                continue
            act = self.copy_row if isinstance(row, rows.Row) else self.write_row
            result = act(row)
            self.show(row, result)
            self.results.append({"row": row.name, "goal": row.goal,
                                 "ratio": measure.ratio(result["ours"], result["peer"]), **result})


def version_of(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0] if done.stdout else "?"


def names(text):
    known = [row.name for row in rows.ALL]
    chosen = text.split(",")
    for name in chosen:
        if name not in known:
            raise argparse.ArgumentTypeError(f"there is no row '{name}': --list prints the rows")
    return chosen


def parse(arguments):
    parser = argparse.ArgumentParser(prog="scripts/bench", add_help=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", type=names)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--json")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR") or "/var/tmp")
    parser.add_argument("--disk", type=os.path.abspath)
    parser.add_argument("--build")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args(arguments)


def main(arguments):
    options = parse(arguments)
    if options.list:
        for row in rows.COPIES:
            print(f"{row.name:<26}{row.peer.split(';')[-1].strip() if row.name == 'nbd-nbdcopy' else row.peer}")
        for row in rows.WRITES:
            print(f"{row.name:<26}qemu-nbd, fio {row.fio}")
        for row in rows.LIMITS:
            print(f"{row.name:<26}none: at most {row.seconds:g} s and {row.mib} MiB")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="virt-compact-bench-", dir=options.dir) as folder:
        # Both sides keep temporary files in the folder of the copies, and use the same cached appliance.
        os.environ["TMPDIR"] = folder
        os.environ.setdefault("LIBGUESTFS_CACHEDIR", "/var/tmp")
        os.environ.setdefault("LIBGUESTFS_BACKEND", "direct")
        bench = Bench(options, folder)
        try:
            bench.go()
        except measure.Failed as error:
            say(f"scripts/bench: error: {error}")
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            bench.unmount()
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump({"machine": {"cores": os.cpu_count(), "system": platform.platform(),
                                       "qemu-img": version_of("qemu-img", "--version"),
                                       "nbdkit": version_of("nbdkit", "--version")},
                           "quick": options.quick, "rows": bench.results}, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
