"""Makes the files of a guest that looks like Windows to libguestfs and virt-v2v: windows.py FOLDER."""

import os
import struct
import subprocess
import sys

NONE = 0xffffffff
# The keys of each hive, with their values as in a .reg file.
HIVES = {
    "SOFTWARE": {
        r"Microsoft\Windows NT\CurrentVersion": {
            "ProductName": '"Windows 10 Pro"',
            "CurrentVersion": '"6.3"',
            "CurrentMajorVersionNumber": "dword:0000000a",
            "CurrentMinorVersionNumber": "dword:00000000",
            "CurrentBuild": '"19045"',
            "InstallationType": '"Client"',
        },
        # The text %SystemRoot%\inf.
        r"Microsoft\Windows\CurrentVersion": {
            "DevicePath": "hex(2):" + ",".join(f"{it:02x}" for it in "%SystemRoot%\\inf\0".encode("utf-16-le")),
        },
        r"Microsoft\Windows\CurrentVersion\Uninstall": {},
    },
    "SYSTEM": {
        r"ControlSet001\Control\ComputerName\ComputerName": {"ComputerName": '"WIN"'},
        r"ControlSet001\Control\CriticalDeviceDatabase": {},
        r"ControlSet001\Control\Class": {},
        r"ControlSet001\Enum": {},
        r"ControlSet001\Services\Tcpip\Parameters": {"Hostname": '"win"'},
        "Select": {"Current": "dword:00000001", "Default": "dword:00000001"},
        "MountedDevices": {},
    },
}


def registration(hive, keys):
    """Returns the text of a .reg file. A key follows its parents."""
    lines, known = ["Windows Registry Editor Version 5.00", ""], set()
    for key, values in keys.items():
        parts = key.split("\\")
        for depth in range(1, len(parts)):
            parent = "\\".join(parts[:depth])
            if parent not in known and parent not in keys:
                lines += [rf"[HKEY_LOCAL_MACHINE\{hive}\{parent}]", ""]
            known.add(parent)
        lines.append(rf"[HKEY_LOCAL_MACHINE\{hive}\{key}]")
        lines += [f'"{name}"={value}' for name, value in values.items()] + [""]
    return "\n".join(lines)


def cell(content):
    """Returns a cell in use: its negative size, and the content, in multiples of 8 bytes."""
    size = (4 + len(content) + 7) & ~7
    return struct.pack("<i", -size) + content.ljust(size - 4, b"\0")


def empty_hive():
    """Returns a hive of the registry with a root and its security descriptor (format: docs of hivex)."""
    name = b"$$$PROTO.HIV"
    root = 0x20
    descriptor = bytes(20)
    length = len(cell(bytes(76) + name))
    security = root + length
    key = struct.pack("<2sHQIIIIIIIIIIIIIIIHH", b"nk", 0x2c, 0, 0, NONE, 0, 0, NONE, NONE, 0, NONE, security, NONE,
                      0, 0, 0, 0, 0, len(name), 0) + name
    body = cell(key) + cell(struct.pack("<2sHIIII", b"sk", 0, security, security, 1, len(descriptor)) + descriptor)
    free = 4096 - 0x20 - len(body)
    page = struct.pack("<4sIIIIQI", b"hbin", 0, 4096, 0, 0, 0, 0) + body + struct.pack("<i", free).ljust(free, b"\0")
    header = struct.pack("<4sIIQIIIIII", b"regf", 1, 1, 0, 1, 3, 0, 1, root, 4096) + struct.pack("<I", 1)
    header = header.ljust(508, b"\0")
    checksum = 0
    for word in struct.unpack("<127I", header):
        checksum ^= word
    return (header + struct.pack("<I", checksum)).ljust(4096, b"\0") + page


def program():
    """Returns a file that begins like a program for 64 bits."""
    pe = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 0, 0, 0, 0, 112, 0x22) + struct.pack("<H", 0x20b).ljust(112, b"\0")
    return (b"MZ".ljust(60, b"\0") + struct.pack("<I", 64) + pe).ljust(1024, b"\0")


def make(folder):
    for name, keys in HIVES.items():
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(empty_hive())
        with open(path + ".reg", "w", encoding="ascii") as file:
            file.write(registration(name, keys))
        subprocess.run(["hivexregedit", "--merge", "--prefix", rf"HKEY_LOCAL_MACHINE\{name}", path, path + ".reg"],
                       check=True)
    with open(os.path.join(folder, "cmd.exe"), "wb") as file:
        file.write(program())


if __name__ == "__main__":
    make(sys.argv[1])
