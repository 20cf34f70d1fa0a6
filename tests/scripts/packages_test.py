"""Checks debian/ against the files that meson installs: packages_test.py SOURCE BUILD."""

import fnmatch
import json
import os
import re
import subprocess
import sys
import unittest

SOURCE, BUILD = (os.path.abspath(it) for it in sys.argv[1:3])


def read(*path):
    with open(os.path.join(SOURCE, *path), encoding="utf-8") as file:
        return file.read()


def introspect(what):
    return json.loads(subprocess.run(["meson", "introspect", what, BUILD], check=True,
                                     stdout=subprocess.PIPE, text=True).stdout)


def deps(*options):
    return subprocess.run([os.path.join(SOURCE, "scripts", "deps"), "--list", *options], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.split()


def field(paragraph, name):
    found = re.search(rf"^{name}:((?: .*)?(?:\n .*)*)", paragraph, re.M)
    return re.split(r"\s*,\s*", found[1].strip().rstrip(",")) if found else []


class Packages(unittest.TestCase):
    def setUp(self):
        self.source, *self.binaries = read("debian", "control").split("\n\n")

    def test_each_installed_file_is_in_one_package(self):
        prefix = next(it["value"] for it in introspect("--buildoptions") if it["name"] == "prefix")
        installed = []
        for path in introspect("--installed").values():
            path = os.path.relpath(path, prefix) if path.startswith(prefix + "/") else path[len("/usr/"):]
            # debian/rules has the folder of Debian's zsh.
            installed.append("usr/" + path.replace("zsh/site-functions", "zsh/vendor-completions"))
        self.assertGreater(len(installed), 25)
        patterns = {}
        for paragraph in self.binaries:
            name = field(paragraph, "Package")[0]
            lines = read("debian", name + ".install").replace("${env:UNIT_DIR}", "usr/lib/systemd/system")
            for line in lines.split():
                patterns.setdefault(line, []).append(name)
        for path in installed:
            owners = [name for line, names in patterns.items() for name in names
                      if fnmatch.fnmatchcase(path, line)]
            self.assertEqual(len(owners), 1, (path, owners))
        for line in patterns:
            self.assertTrue(any(fnmatch.fnmatchcase(it, line) for it in installed), line)

    def test_build_dependencies_are_those_of_scripts_deps(self):
        wanted = {it for it in deps("--run") if not it.startswith(("g++", "linux-image"))}
        named = {it.split(" ")[0] for it in field(self.source, "Build-Depends")}
        # Without po4a, the build leaves out the translations.
        self.assertEqual(named - {"debhelper-compat"}, wanted | {"po4a"})

    def test_filters_need_the_nbdkit_that_they_were_built_for(self):
        by_name = {field(it, "Package")[0]: field(it, "Depends") for it in self.binaries}
        self.assertEqual(set(by_name), {"virt-compact", "nbdkit-plugin-qcow2", "nbdkit-filters-qcow2"})
        self.assertIn("${nbdkit:Depends}", by_name["nbdkit-filters-qcow2"])
        self.assertIn("nbdkit", by_name["nbdkit-plugin-qcow2"])
        self.assertIn("-Vnbdkit:Depends=", read("debian", "rules"))

    def test_versions_agree(self):
        project = re.search(r"^  version: '(.*)'", read("meson.build"), re.M)[1]
        self.assertTrue(read("debian", "changelog").startswith(f"virt-compact ({project}-"))

    def test_modules_go_where_nbdkit_looks(self):
        for path in introspect("--installed").values():
            for kind in ("plugin", "filter"):
                if path.endswith(f"-{kind}.so"):
                    folder = subprocess.run(["pkg-config", f"--variable={kind}dir", "nbdkit"], text=True,
                                            check=True, stdout=subprocess.PIPE).stdout.strip()
                    self.assertEqual(os.path.dirname(path), folder)

    def test_other_systems_have_names(self):
        self.assertIn("nbdkit-devel", deps("--system=fedora"))
        self.assertEqual(len([it for it in deps("--system=fedora") if it.endswith("-dev")]), 0)
        self.assertIn("nbdkit-plugin-dev", deps("--system=ubuntu"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
