"""The rows of the benchmark: a command of virt-compact, and the command that it is compared with.

In a command, {disk} is the disk, {out} the copy, {vc} our command, {plugin} our plugin, and {size} the
size of the disk in bytes.  If the other program does not flush, its command ends with a sync of {out}.
"""

from dataclasses import dataclass


@dataclass
class Row:
    name: str
    ours: str
    peer: str
    goal: float  # ours / peer, in wall time
    check: bool = True  # both make a QCOW2 image in {out}, which must have no errors
    equal: bool = True  # and must have the content of `source`
    largest: float = 0  # ours / peer, in the space that both take on the disk; 0: no goal
    peak: bool = True  # one more run of each measures memory
    prepare: str = ""  # runs once, before the first run; may make {extra}
    before: str = ""  # runs before every run, not timed: makes {out} if it is changed in place
    source: str = "{disk}"  # the disk that the copy must be equal to
    filesystem: str = ""  # filesystem of the row's own disk; empty: the shared disk
    gib: tuple = (6, 1)  # size of that disk, without and with --quick; 0: not with --quick
    once: bool = False  # runs once unless --runs is given
    mounted: str = ""  # the disk and the copies are on this filesystem, in a file that is mounted


PLAIN = "{vc} copy -q --force --reflink=never {disk} {out}"
CLONE = "{vc} copy -q --force --reflink=always {disk} {out}"
QEMU = "qemu-img convert -O qcow2"
BEST = "qemu-img convert -t none -W -m 16 -O qcow2"
ZSTD = "-c -m 16 -W -o compression_type=zstd"
ZLIB = "-c -m 16 -W -o compression_type=zlib"
OPTIMIZE = "{vc} optimize -q -c -o {out} {disk}"
SPARSIFY = "virt-sparsify -q --compress {disk} {out}"


def optimize(filesystem, gib, suffix=""):
    """Free space from the metadata against virt-sparsify, and against our own appliance."""
    how = {"equal": False, "peak": False, "filesystem": filesystem, "gib": gib, "once": True}
    name = f"optimize-{filesystem}{suffix}"
    return [
        Row(name, OPTIMIZE, SPARSIFY, 0.1, largest=1.0, **how),
        Row(name + "-boot", OPTIMIZE, OPTIMIZE + " --trim=appliance", 1.0, largest=1.01, **how),
    ]


COPIES = [
    Row("plain", PLAIN, QEMU + " {disk} {out}", 0.5),
    Row("plain-best", PLAIN, BEST + " {disk} {out}", 0.95),
    Row("plain-cp", PLAIN, "cp --sparse=never {disk} {out}", 1.0),
    Row("clone", CLONE, QEMU + " {disk} {out}", 0.1, mounted="xfs"),
    Row("clone-cp", CLONE, "cp --reflink=never --sparse=never {disk} {out}", 0.2, mounted="xfs"),
    Row("clone-btrfs", CLONE, QEMU + " {disk} {out}", 0.1, mounted="btrfs"),
    Row("zstd", "{vc} copy -q --force -c {disk} {out}",
        f"qemu-img convert -O qcow2 {ZSTD} {{disk}} {{out}}", 0.5),
    Row("zlib", "{vc} copy -q --force --compression=zlib {disk} {out}",
        f"qemu-img convert -O qcow2 {ZLIB} {{disk}} {{out}}", 0.3),
    Row("zstd-again", "{vc} copy -q --force -c {extra} {out}",
        f"qemu-img convert -O qcow2 {ZSTD} {{extra}} {{out}}", 0.1,
        prepare="{vc} copy -q --force -c {disk} {extra}", source="{extra}"),
    Row("nbd", "{vc} copy -q --force [ qemu-nbd -r -f qcow2 -e 16 {disk} ] {out}",
        "qemu-nbd --fork --pid-file={socket}.pid -r -f qcow2 -t -k {socket} {disk}; "
        "qemu-img convert -f raw -O qcow2 'nbd+unix:///?socket={socket}' {out}; status=$?; "
        "kill $(cat {socket}.pid); exit $status", 0.8),
    Row("nbd-nbdcopy", "{vc} copy -q --force [ qemu-nbd -r -f qcow2 -e 16 {disk} ] {out}",
        "qemu-img create -q -f qcow2 {out} {size}; "
        "nbdcopy --flush -- [ qemu-nbd -r -f qcow2 {disk} ] [ qemu-nbd -f qcow2 {out} ]", 0.3),
    Row("empty-1t", "{vc} copy -q --force {extra} {out}", QEMU + " {extra} {out}", 0.5,
        prepare="qemu-img create -q -f qcow2 {extra} 1T; "
                "qemu-io -f qcow2 -c 'write -q -P 1 0 1M' -c 'write -q -P 2 900G 1M' {extra}",
        source="{extra}"),
    Row("optimize", OPTIMIZE, SPARSIFY, 0.1, equal=False, largest=1.0, peak=False),
    Row("trim", "{vc} trim -q {out}", "virt-sparsify -q --in-place {out}", 1.0, equal=False,
        largest=1.0, peak=False, before="cp --sparse=never {disk} {out}"),
    *optimize("ext4", (6, 1)),
    *optimize("xfs", (6, 1)),
    *optimize("ntfs", (6, 1)),
    *optimize("ext4", (20, 0), "-large"),
    *optimize("xfs", (20, 0), "-large"),
    *optimize("ntfs", (20, 0), "-large"),
    Row("plugin-read", "nbdcopy -- [ nbdkit -r {plugin} {disk} ] null:",
        "nbdcopy -- [ qemu-nbd -r -f qcow2 {disk} ] null:", 0.6, check=False),
]


@dataclass
class Writes:
    """A load of fio on our plugin, and on qemu-nbd, which also unmaps and detects zeros."""
    name: str
    fio: str
    image: str = "cluster_size=64k"
    filled: bool = False  # the disk is written before the run
    goal: float = 1.0


WRITES = [
    Writes("write-seq", "--rw=write --bs=1M --iodepth=8 --end_fsync=1"),
    Writes("write-4k-fresh", "--rw=randwrite --bs=4k --iodepth=16 --io_size={part} --end_fsync=1"),
    Writes("write-4k-place", "--rw=randwrite --bs=4k --iodepth=16 --io_size={part} --end_fsync=1",
           filled=True),
    Writes("write-4k-fsync", "--rw=randwrite --bs=4k --iodepth=16 --io_size=16M --fsync=1",
           filled=True),
    Writes("write-4k-sub", "--rw=randwrite --bs=4k --iodepth=16 --io_size={part} --end_fsync=1",
           image="cluster_size=64k,extended_l2=on"),
    Writes("write-zeros", "--rw=write --bs=1M --iodepth=8 --end_fsync=1 --zero_buffers=1"),
    Writes("trim-64k", "--rw=randtrim --bs=64k --iodepth=16 --io_size={part} --end_fsync=1",
           filled=True),
]


@dataclass
class Limit:
    """Limits of time and memory for our command alone, on a disk of 1 TiB."""
    name: str
    filesystem: str
    ours: str = "{vc} space {disk}"
    seconds: float = 2
    mib: int = 64


LIMITS = [
    Limit("space-ext4-1t", "ext4"),
    Limit("space-xfs-1t", "xfs"),
    Limit("space-ntfs-1t", "ntfs"),
]

ALL = COPIES + WRITES + LIMITS
