"""Checks the commands and pictures of the README and of the recipes: readme_test.py SOURCE VIRT_COMPACT."""

import functools
import os
import re
import subprocess
import sys
import unittest
import xml.etree.ElementTree

SOURCE, PROGRAM = sys.argv[1], os.path.abspath(sys.argv[2])
COMMAND = re.compile(r"virt-compact ([a-z]+)((?: [^`\n|#;>]*)?)")
OPTION = re.compile(r"(?<=\s)(--[a-z][a-z-]*|-[a-zA-Z])(?=[\s=,]|$)")


def read(*path):
    with open(os.path.join(SOURCE, *path), encoding="utf-8") as file:
        return file.read()


def code(page):
    """Yields the code of a page: spans and indented lines."""
    if page.endswith(".md"):
        text = read(page)
        yield from re.findall(r"`([^`\n]+)`", text)
        yield from re.findall(r"^    (.*)", text, re.M)
    else:
        yield from re.findall(r"^ (.*)", read(page), re.M)


@functools.cache
def options_of(command):
    done = subprocess.run([PROGRAM, command, "--help-all"], stdout=subprocess.PIPE, text=True, check=True)
    lines = [it[:34] for it in done.stdout.splitlines() if re.match(r" {2,6}-", it)]
    return set(re.findall(r"(?<=[ ,])(--?[A-Za-z][A-Za-z-]*)", "\n".join(lines)))


class Readme(unittest.TestCase):
    def test_commands_and_options_exist(self):
        help_text = subprocess.run([PROGRAM, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
        commands = set(re.findall(r"^  ([a-z]+) ", help_text, re.M))
        for page in ("README.md", os.path.join("man", "virt-compact-recipes.pod")):
            found = 0
            for line in code(page):
                for command, rest in COMMAND.findall(line):
                    with self.subTest(page=page, line=line):
                        self.assertIn(command, commands)
                        used = OPTION.findall(rest.split(" [ ")[0].split(" | ")[0])
                        self.assertEqual(set(used) - options_of(command), set())
                        found += 1
            self.assertGreater(found, 20)

    def test_each_command_is_listed(self):
        readme = read("README.md")
        help_text = subprocess.run([PROGRAM, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
        for command in re.findall(r"^  ([a-z]+) ", help_text, re.M):
            self.assertIn("`virt-compact " + command + " ", readme)

    def test_links_lead_to_files(self):
        links = re.findall(r"\]\(([^)#]+)\)", read("README.md"))
        self.assertGreater(len(links), 20)
        for link in links:
            self.assertTrue(os.path.exists(os.path.join(SOURCE, link)), link)

    def test_pictures_are_small(self):
        for name in ("before.svg", "after.svg"):
            path = os.path.join(SOURCE, "docs", "pictures", name)
            self.assertLess(os.path.getsize(path), 32768)
            root = xml.etree.ElementTree.parse(path).getroot()
            self.assertTrue(root.tag.endswith("svg"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
