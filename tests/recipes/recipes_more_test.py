"""Runs the recipes of virt-compact-recipes(7) that boot a guest or an appliance, or need libvirt.

recipes_more_test.py PAGE VIRT_COMPACT PLUGIN FILTER...
WRITTEN_GUEST in the environment: the program written-guest.
"""

import configparser
import os
import shlex
import sys
import unittest
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import windows  # noqa: E402
from machine import wrapper  # noqa: E402
from page_case import PageCase, start  # noqa: E402

GUEST = shlex.quote(os.environ.get("WRITTEN_GUEST", "written-guest"))
# sshd and keys for the user of the machine.
SSH = r"""
mkdir -p /run/sshd .ssh
ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519
ssh-keygen -q -t ed25519 -N '' -f .hostkey
cp .ssh/id_ed25519.pub .ssh/authorized_keys
printf 'server %s\n' "$(cut -d ' ' -f 1,2 .hostkey.pub)" >.ssh/known_hosts
cat >.sshd_config <<END
Port 22
HostKey $HOME/.hostkey
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
SetEnv PATH=$PATH
Subsystem sftp internal-sftp
END
/usr/sbin/sshd -f .sshd_config
cp vm.qcow2 /srv/vm.qcow2
"""
# A disk that virt-v2v takes for that of a Windows.
WINDOWS = r"""
head -c 8M /dev/urandom >.noise
qemu-img create -q -f qcow2 win.qcow2 256M
guestfish -a win.qcow2 <<END
run
part-disk /dev/sda mbr
mkfs ntfs /dev/sda1
mount /dev/sda1 /
mkdir-p /Windows/System32/config
mkdir-p /Windows/System32/drivers
mkdir-p /Windows/inf
mkdir "/Program Files"
upload .windows/SOFTWARE /Windows/System32/config/SOFTWARE
upload .windows/SYSTEM /Windows/System32/config/SYSTEM
upload .windows/cmd.exe /Windows/System32/cmd.exe
upload .noise /pagefile.sys
upload .noise /gone
upload .kept /kept
sync
rm /gone
umount-all
END
"""
ROOT = os.geteuid() == 0
# A daemon of libvirt for this machine. As root it would use the folders of the system.
LIBVIRT = r"""
mkdir -p .v/run .v/config/libvirt .v/cache .v/data
printf 'unix_sock_dir = "%s"\nauth_unix_rw = "none"\n' "$HOME/.v/run" >.v/conf
echo 'max_core = 0' >.v/config/libvirt/qemu.conf
mount -t tmpfs tmpfs /var/tmp
chmod 1777 /run /srv /var/tmp
chown -R 65534:65534 .
as_user=()
[ "$(id -u)" != 0 ] || as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
"${as_user[@]}" env XDG_RUNTIME_DIR="$HOME/.v/run" XDG_CONFIG_HOME="$HOME/.v/config" XDG_CACHE_HOME="$HOME/.v/cache" \
  XDG_DATA_HOME="$HOME/.v/data" /usr/sbin/libvirtd -f .v/conf >.v/log 2>&1 &
export LIBVIRT_DEFAULT_URI="qemu+unix:///session?socket=$HOME/.v/run/libvirt-sock"
waits_for virsh -q uri
"""
# Zeros that the image stores: what optimize --live can save without an agent.
WASTE = "qemu-io -c 'write -q -P 0 40M 6M' vm.qcow2; cp vm.qcow2 .old\n"
AS_BEFORE = "good vm.qcow2; same_disk vm.qcow2 .old; cmp vm.qcow2.bak .old; smaller vm.qcow2 .old"
DOMAIN = r"""
cat >.web.xml <<END
<domain type='qemu'><name>web</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os>
<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>
<source file='$PWD/vm.qcow2'/><target dev='vda' bus='virtio'/></disk>
<controller type='usb' model='none'/><memballoon model='none'/></devices></domain>
END
virsh -q define .web.xml
virsh -q start web
"""


class BootedRecipes(PageCase):
    def make_windows(self):
        windows.make(self.machine.make_folder(".windows"))
        self.machine.environment["VIRT_TOOLS_DATA_DIR"] = self.machine.make_folder(".tools")
        # virt-v2v wants to copy it into the guest.
        wrapper(os.path.join(self.home, ".tools", "rhsrvany.exe"), "")

    def test_guestfish(self):
        told = self.recipe("guestfish, virt-df and virt-ls",
                           before="virt-compact copy -c vm.qcow2 c.qcow2; mv c.qcow2 vm.qcow2")
        self.assertIn("/dev/sda: ext4", told)
        self.assertRegex(told, r"/dev/sda +\d+ +\d+ +\d+ +\d+%")
        self.assertRegex(told, r"(?m)^-rw.* 3145728 .* kept$")

    def test_sparsify(self):
        self.recipe("Instead of virt-sparsify",
                    before="cp vm.qcow2 .old; virt-sparsify --compress vm.qcow2 sparse.qcow2",
                    after="good small.qcow2; good vm.qcow2; smaller vm.qcow2 .old\n"
                    "[ $(size small.qcow2) -le $(size sparse.qcow2) ]\n"
                    "virt-sparsify --in-place .old; smaller vm.qcow2 .old")

    def test_v2v(self):
        self.make_windows()
        self.recipe("After virt-v2v", before=WINDOWS + "mkdir /srv/out",
                    after="cd /srv/out; grep \"<source file='/srv/out/win-sda'/>\" win.xml\n"
                    "qemu-img check -q win-sda; smaller win-sda win-sda.bak\n"
                    "guestfish --ro -a win-sda -m /dev/sda1 download /kept .now; cmp .now ~/.kept")

    def test_qemu(self):
        wrapper(os.path.join(self.machine.bin, "qemu-system-x86_64"), r"""
words=()
for word in "$@"; do
  # KVM may be missing.
  [ "$word" != kvm ] || word=tcg
  words+=("$word")
done
exec /usr/bin/qemu-system-x86_64 "${words[@]}" -kernel ~/kernel -initrd ~/initrd \
  -append 'console=ttyS1 rdinit=/init quiet panic=-1' -serial file:"$HOME/serial" -serial null \
  -device virtio-serial -chardev socket,path="$HOME/.agent",server=on,wait=off,id=agent \
  -device virtserialport,chardev=agent,name=org.qemu.guest_agent.0
""")
        agent = shlex.quote(os.path.join(HERE, "agent.py"))
        told = self.recipe("A guest with its disk on the plugin",
                           before=f"rm vm.qcow2; {GUEST} make ~ ~/vm.qcow2; size vm.qcow2\n"
                           f"python3 {agent} ~/.agent ~/serial & agent=$!",
                           after=f"wait $agent; {GUEST} check ~ ~/vm.qcow2; qemu-img check -q vm.qcow2\n"
                           "echo; size vm.qcow2; cat serial")
        self.assertRegex(told, r"(?m)^END \d+\r?$")
        sizes = [int(it) for it in told.splitlines() if it.isdigit()]
        # The guest has discarded 32 MiB that the image stored, and may have written 16 MiB.
        self.assertGreater(sizes[0], 48 << 20)
        self.assertLess(sizes[1], 40 << 20)

    @unittest.skipUnless(ROOT, "sshd needs root")
    def test_pipe(self):
        self.recipe("Through a pipe", before=SSH + "rm /srv/vm.qcow2", after="same_disk vm.qcow2 /srv/vm.qcow2")

    @unittest.skipUnless(ROOT, "sshd needs root")
    def test_ssh(self):
        self.recipe("Over ssh, without virt-compact on the server", before=SSH, after="same_disk vm.qcow2 copy.qcow2")

    @unittest.skipUnless(ROOT, "sshd needs root")
    def test_ssh_with_plugin(self):
        self.recipe("Over ssh, with the plugin on the server", before=SSH + "mv vm.qcow2 .vm",
                    after="same_disk .vm copy.qcow2; same_disk .vm copy2.qcow2; cmp copy.qcow2 copy2.qcow2")

    def test_pool(self):
        told = self.recipe("A storage pool of libvirt",
                           before=LIBVIRT + "mkdir /srv/vms; cp vm.qcow2 /srv/vms/\n"
                           "cp vm.qcow2 '/srv/vms/web two.qcow2'\n"
                           "qemu-img create -q -f raw /srv/vms/install.iso 1M; chown -R 65534:65534 /srv/vms\n"
                           "virsh -q pool-define-as vms dir --target /srv/vms; virsh -q pool-start vms",
                           after="cd /srv/vms\nfor each in vm.qcow2 'web two.qcow2'; do good \"$each\"; smaller \"$each\" \"$each.bak\"\ndone")
        self.assertRegex(told, r"web two.qcow2 +.*3\.\d\d MiB")

    def test_live(self):
        self.recipe("Optimize its disks", before=WASTE + LIBVIRT + DOMAIN,
                    after="virsh destroy web\n" + AS_BEFORE)

    def test_live_qmp(self):
        self.recipe("Optimize the disk of a QEMU without libvirt",
                    before=WASTE + "qemu-system-x86_64 -accel tcg -m 32 -display none -nodefaults"
                    " -qmp unix:/run/web.qmp,server=on,wait=off -drive if=virtio,format=qcow2,discard=unmap,file=vm.qcow2 & qemu=$!\n"
                    "waits_for test -S /run/web.qmp",
                    after="kill $qemu; wait $qemu\n" + AS_BEFORE)

    def test_service(self):
        """The command of the service, for the domain `web`."""
        snippet, service, timer = (it.text for it in self.recipes["KEEP IT SMALL"].blocks)
        xml.etree.ElementTree.fromstring(snippet)
        units = [configparser.ConfigParser(interpolation=None) for _ in range(2)]
        for unit, text in zip(units, (service, timer)):
            unit.read_string(text)
        self.assertIn("OnCalendar", units[1]["Timer"])
        command = units[0]["Service"]["ExecStart"].replace("%%", "%").replace("%i", "web").removeprefix("/usr/bin/")
        done = self.machine.run(WASTE + LIBVIRT + DOMAIN + command +
                                "\nvirsh destroy web; good vm.qcow2; smaller vm.qcow2 .old; [ ! -e vm.qcow2.bak ]")
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_backup(self):
        self.recipe("Copy its disk to other storage", before=LIBVIRT + DOMAIN + "mkdir /srv/other",
                    after="good /srv/other/vm.qcow2; virsh destroy web; same_disk vm.qcow2 /srv/other/vm.qcow2\n"
                    "[ ! -e /srv/web-scratch.qcow2 ]")


if __name__ == "__main__":
    start()
