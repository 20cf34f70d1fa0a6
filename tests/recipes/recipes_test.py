"""Runs the recipes of virt-compact-recipes(7) with the real tools, without a boot.

recipes_test.py PAGE VIRT_COMPACT PLUGIN FILTER...
"""

import json
import os
import re
import shlex
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from page_case import PageCase, start  # noqa: E402

DAMAGE = """
import struct
with open("vm.qcow2", "r+b") as file:
    header = file.read(104)
    l1 = struct.unpack_from(">Q", header, 40)[0]
    file.seek(l1)
    l2 = struct.unpack(">Q", file.read(8))[0] & 0x00fffffffffffe00
    file.seek(l2)
    table = struct.unpack(">8192Q", file.read(65536))
    index = next(i for i, entry in enumerate(table) if entry)
    file.seek(l2 + 8 * index)
    file.write(struct.pack(">Q", 1 << 63 | 1 << 40))
"""
# A snapshot, and data that was written after it.
SNAPSHOT = "qemu-img snapshot -c before-upgrade vm.qcow2; qemu-io -c 'write -q -P 7 40M 1M' vm.qcow2\n"
WEB = f"""
mkdir .www
cp vm.qcow2 .www/
python3 {shlex.quote(os.path.join(HERE, "web_server.py"))} .www .requests &
waits_for bash -c ': </dev/tcp/server/80' 2>/dev/null
"""
# An NTFS with a file of Windows that the next boot makes again.
WINDOWS = r"""
truncate -s 32M .raw
mkntfs -q -F .raw >/dev/null 2>&1
head -c 8M /dev/urandom >.page
ntfscp -q .raw .page pagefile.sys
ntfscp -q .raw .kept kept
qemu-img convert -f raw -O qcow2 .raw win.qcow2
cp win.qcow2 .old
"""


class Recipes(PageCase):
    def test_each_recipe_has_a_test(self):
        tests = ""
        for name in ("recipes_test.py", "recipes_more_test.py"):
            with open(os.path.join(HERE, name), encoding="utf-8") as file:
                tests += file.read()
        with_commands = [it for it in self.recipes.values() if it.blocks]
        self.assertGreater(len(with_commands), 20)
        for recipe in with_commands:
            with self.subTest(recipe.title):
                reason = re.search(r"The tests do not run this recipe:\s+\w", recipe.prose)
                self.assertNotEqual(f'"{recipe.title}"' in tests, bool(reason))

    def test_worth(self):
        told = self.recipe("IS IT WORTH IT?", after="grep -q '<svg' vm.svg")
        stored = re.search(r"([\d.]+) MiB of that stored", told)
        self.assertIsNotNone(stored, told)
        # Versions of mke2fs place the files differently, and a cluster is stored as a whole.
        self.assertTrue(9.0 < float(stored[1]) < 9.5, told)

    def test_procedure(self):
        self.recipe("THE WHOLE PROCEDURE", before="cp vm.qcow2 .old",
                    after="cmp vm.qcow2 .old; [ ! -e vm.qcow2.bak ]")

    def test_windows(self):
        self.recipe("A Windows guest", before=WINDOWS, elsewhere=["shutdown /s /t 0\n"],
                    after="cmp win.qcow2.bak .old; qemu-img check -q win.qcow2\n"
                    "[ $(size win.qcow2) -lt $(($(size .old) - (7 << 20))) ]\n"
                    "qemu-img convert -O raw win.qcow2 .raw; ntfscat .raw kept | cmp - .kept\n"
                    "ntfscat .raw pagefile.sys | cmp - <(head -c 8M /dev/zero)")

    def test_many_disks(self):
        told = self.recipe("All guests of a host, at night", before="cp vm.qcow2 web.qcow2; mkdir -p /srv/other",
                           each="good vm.qcow2; good web.qcow2; ls *.qcow2.bak || ls /srv/other")
        self.assertIn("web.qcow2.bak", told)
        with open(os.path.join(self.home, "report.json"), encoding="utf-8") as file:
            self.assertEqual(len(json.load(file)["disks"]), 2)

    def test_every_night(self):
        enable = next(it.text for it in self.recipes["Every night, as a service"].blocks if "systemctl" in it.text)
        # No libvirt runs here, so the status is 1.
        told = self.recipe("Every night, as a service", before="cp vm.qcow2 /srv/vm.qcow2; cp vm.qcow2 .old",
                           elsewhere=[enable], exits={1: 1}, after="cmp /srv/vm.qcow2 .old; [ ! -e /srv/vm.qcow2.bak ]")
        self.assertIn("no libvirt runs on this machine", told)
        self.assertRegex(told, r"/srv/vm\.qcow2\n  expected: would gain about .*\n")

    def test_no_space(self):
        self.recipe("Without space for a second copy", before="cp vm.qcow2 .old",
                    after="good vm.qcow2; smaller vm.qcow2 .old; [ ! -e vm.qcow2.bak ]")

    def test_without_the_appliance(self):
        self.recipe("Without the appliance", each="good vm.qcow2")

    def test_layouts(self):
        self.recipe("WHICH LAYOUT?", each="good vm.qcow2; [ -e vm.qcow2.bak ] || good vm-archive.qcow2")

    def test_snapshots(self):
        self.recipe("SNAPSHOTS AND CHAINS", before=SNAPSHOT + "cp vm.qcow2 .old; cp vm.qcow2 base.qcow2\n"
                    "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2\n"
                    "qemu-io -c 'write -q -P 9 40M 2M' -c 'write -q -z 40M 1M' overlay.qcow2",
                    after="good before-upgrade.qcow2; good vm.qcow2; [ -z \"$(qemu-img snapshot -l vm.qcow2)\" ]\n"
                    "same_disk overlay.qcow2 alone.qcow2; [ $(qemu-img info alone.qcow2 | grep -c backing) = 0 ]\n"
                    "same_disk overlay.qcow2 small-overlay.qcow2; smaller small-overlay.qcow2 overlay.qcow2")

    def test_damaged(self):
        # The entry of the first cluster that has data points past the end of the file.
        self.recipe("A DAMAGED IMAGE", before="python3 - <<'END'\n" + DAMAGE + "END", exits={0: 2, 2: 4},
                    after="qemu-img check -q saved.qcow2")

    def test_untrusted(self):
        self.recipe("UNTRUSTED IMAGES", before="mkdir fresh; cp vm.qcow2 upload.qcow2",
                    after="same_disk upload.qcow2 fresh/disk.qcow2")

    def test_missing_backing_file(self):
        self.recipe("A MISSING BACKING FILE", before="mkdir images; cp vm.qcow2 images/base.qcow2\n"
                    "qemu-img create -q -f qcow2 -b vm.qcow2 -F qcow2 top.qcow2\n"
                    "qemu-io -c 'write -q -P 5 40M 1M' top.qcow2",
                    after="qemu-img info top.qcow2 | grep 'backing file: images/base.qcow2'\n"
                    "qemu-io -c 'read -q -P 5 40M 1M' rest.qcow2; smaller rest.qcow2 images/base.qcow2")

    def test_nbd_server(self):
        self.recipe("From an NBD server", after="same_disk vm.qcow2 copy.qcow2; smaller copy.qcow2 vm.qcow2")

    def test_web_server(self):
        told = self.recipe("From a web server", before=WEB,
                           after="good copy.qcow2; smaller copy.qcow2 vm.qcow2")
        self.assertIn("of that stored", told)
        with open(os.path.join(self.home, ".requests"), encoding="utf-8") as file:
            answers = [line.split() for line in file]
        ranges = sum(int(length) for status, length in answers if status == "206")
        self.assertGreater(len(answers), 10)
        # The image has 12 MiB. Neither command needs more than a third of it.
        self.assertLess(ranges, 9 << 20)

    def test_packer(self):
        block = self.recipes["Packer"].blocks[0].text
        (command,) = re.findall(r'inline = \["(.*)"\]', block)
        done = self.machine.run("mkdir output; mv vm.qcow2 output/image.qcow2; cp output/image.qcow2 .old\n"
                                # What Packer runs otherwise.
                                f"qemu-img convert -c -O qcow2 .old .converted\n{command}\n"
                                "good output/image.qcow2; smaller output/image.qcow2 .converted; [ $(ls output) = image.qcow2 ]")
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_raw(self):
        self.recipe("A raw disk from an image, and back",
                    after="same_disk vm.qcow2 vm.raw; for each in new*.qcow2; do qemu-img check -q $each\n"
                    "same_disk vm.qcow2 $each; [ $(size $each) -lt $((14 << 20)) ]; done; smaller new3.qcow2 new.qcow2")

    def test_snapshot(self):
        self.recipe("A snapshot", before="cp vm.qcow2 .old\n" + SNAPSHOT, after="same_disk .old old.raw")

    def test_cow(self):
        self.recipe("A disk with changes that are thrown away",
                    before="cp vm.qcow2 .old; qemu-img create -q -f raw vm.raw 48M; qemu-io -f raw -c 'write -q -P 3 0 9M' vm.raw",
                    after="nbdcopy \"nbd+unix:///?socket=$PWD/vm.sock\" again.raw; cmp again.raw vm.raw; cmp .old vm.qcow2")


if __name__ == "__main__":
    start()
