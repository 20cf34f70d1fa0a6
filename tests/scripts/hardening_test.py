"""Checks that the built ELF files are hardened: hardening_test.py COMMAND PLUGIN FILTER...

VIRT_COMPACT_FORTIFIED is 1 if the build defines _FORTIFY_SOURCE.
"""

import os
import platform
import re
import subprocess
import sys
import unittest

COMMAND, PLUGIN, *FILTERS = sys.argv[1:]
FILES = [COMMAND, PLUGIN, *FILTERS]

# What -fcf-protection and -mbranch-protection put where an indirect jump may lead: endbr64, paciasp.
# The note that promises it for the whole file is no measure: the linker leaves it out as Debian's
# crti.o has none.
LANDING = {"x86_64": b"\xf3\x0f\x1e\xfa", "aarch64": b"\x3f\x23\x03\xd5"}


def readelf(option, path):
    command = ["readelf", "-W", option, path]
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True,
                          env=environment).stdout


def segments(path):
    """Returns the flags of each kind of segment, such as {"LOAD": ["R", "R E", "RW"]}."""
    found = {}
    line = re.compile(r"^ +([A-Z_]+)(?: +0x[0-9a-f]+){5} ([RWE ]{3}) ", re.M)
    for kind, flags in line.findall(readelf("-l", path)):
        found.setdefault(kind, []).append(flags.strip())
    return found


def dynamic_flags(path):
    """Returns the words of the entries FLAGS and FLAGS_1, such as {"BIND_NOW", "NOW", "PIE"}."""
    return set(" ".join(re.findall(r"\(FLAGS(?:_1)?\) +(?:Flags: )?(.*)",
                                   readelf("-d", path))).split())


def imports(path):
    """Returns the names of the functions that the file takes from libraries."""
    return {line.split()[7].split("@")[0] for line in readelf("--dyn-syms", path).splitlines()
            if " FUNC " in line and " UND " in line}


def code(path):
    """Returns the bytes of .text."""
    found = re.search(r" \.text +PROGBITS +[0-9a-f]+ ([0-9a-f]+) ([0-9a-f]+) ", readelf("-S", path))
    with open(path, "rb") as file:
        file.seek(int(found.group(1), 16))
        return file.read(int(found.group(2), 16))


class Hardening(unittest.TestCase):
    def test_addresses_of_functions_cannot_be_overwritten(self):
        for path in FILES:
            with self.subTest(os.path.basename(path)):
                self.assertIn("GNU_RELRO", segments(path))
                self.assertTrue({"BIND_NOW", "NOW"} & dynamic_flags(path))

    def test_the_command_is_at_a_random_address(self):
        self.assertIn("PIE", dynamic_flags(COMMAND))

    def test_modules_need_no_change_to_their_code(self):
        for path in FILES:
            with self.subTest(os.path.basename(path)):
                self.assertRegex(readelf("-h", path), r"Type: +DYN\b")
                self.assertNotIn("TEXTREL", dynamic_flags(path))

    def test_nothing_is_both_writable_and_executable(self):
        for path in FILES:
            with self.subTest(os.path.basename(path)):
                kinds = segments(path)
                self.assertEqual(kinds["GNU_STACK"], ["RW"])
                self.assertGreater(len(kinds["LOAD"]), 2)
                for flags in sum(kinds.values(), []):
                    self.assertFalse("W" in flags and "E" in flags, flags)

    def test_stacks_are_guarded(self):
        for path in FILES:
            with self.subTest(os.path.basename(path)):
                self.assertTrue("__stack_chk_fail" in imports(path))

    @unittest.skipUnless(os.environ["VIRT_COMPACT_FORTIFIED"] == "1", "no _FORTIFY_SOURCE")
    def test_lengths_are_checked_by_the_c_library(self):
        # The filters have no call whose length every compiler fails to prove.
        for path in [COMMAND, PLUGIN]:
            with self.subTest(os.path.basename(path)):
                self.assertTrue({name for name in imports(path) if name.endswith("_chk")})

    @unittest.skipUnless(platform.machine() in LANDING, "no landing instruction is known")
    def test_indirect_jumps_lead_to_marked_places(self):
        # A few, those of the C start-up files, are there in any case.
        for path in FILES:
            with self.subTest(os.path.basename(path)):
                self.assertGreater(code(path).count(LANDING[platform.machine()]), 8)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
