"""Checks over all #include lines that modules keep to their table: modules_test.py SOURCE_ROOT."""

import collections
import os
import re
import sys
import unittest

ROOT = sys.argv[1]
TABLE = os.path.join(ROOT, "tests", "scripts", "modules.txt")
# Units (a .h with its .cc) that a folder may hold before it should be split.
MOST_UNITS = 22
NO_SOURCES = ("tests", "build", ".git")

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^">]+)[">]', re.M)


def read_table():
    """Returns the folders with what they may include, in order, and the rules of headers."""
    folders, headers = {}, {}
    with open(TABLE, encoding="utf-8") as table:
        for line in table:
            line = line.split("#")[0].strip()
            if not line:
                continue
            name, allowed = line.split(":", 1)
            if name.startswith("<"):
                headers[name.strip("<>")] = allowed.split()
            else:
                folders[name] = allowed.split()
    return folders, headers


def sources():
    """Returns the paths of all sources of the product, relative to the root."""
    found = []
    for folder, below, names in os.walk(ROOT):
        relative = os.path.relpath(folder, ROOT)
        if relative == ".":
            below[:] = [it for it in below if not it.startswith(NO_SOURCES)]
        found += [os.path.normpath(os.path.join(relative, it)) for it in names
                  if it.endswith((".cc", ".h"))]
    return sorted(found)


def includes():
    """Returns {path: [(is_ours, name)]}."""
    found = {}
    for path in sources():
        with open(os.path.join(ROOT, path), encoding="utf-8") as source:
            found[path] = [(mark == '"', name) for mark, name in INCLUDE.findall(source.read())]
    return found


def matches(folder, rules):
    """Returns True if a rule ("copy", or "copy/" with all folders below it) includes the folder."""
    return any(folder == it.rstrip("/") or (it.endswith("/") and folder.startswith(it))
               for it in rules)


def unit_of(path):
    return os.path.splitext(path)[0]


def find_circle(graph):
    """Returns a list of nodes that lead back to the first, or None."""
    state = {}
    for start in graph:
        if start in state:
            continue
        path, stack = [], [(start, iter(sorted(graph[start])))]
        state[start] = "open"
        path.append(start)
        while stack:
            node, below = stack[-1]
            for it in below:
                if state.get(it) == "open":
                    return path[path.index(it):] + [it]
                if it in graph and it not in state:
                    state[it] = "open"
                    path.append(it)
                    stack.append((it, iter(sorted(graph[it]))))
                    break
            else:
                state[node] = "done"
                path.pop()
                stack.pop()
    return None


class Modules(unittest.TestCase):
    def setUp(self):
        self.folders, self.headers = read_table()
        self.includes = includes()
        self.assertGreater(len(self.includes), 300)

    def test_every_folder_is_in_the_table(self):
        there = {os.path.dirname(it) for it in self.includes}
        self.assertEqual(there, set(self.folders))

    def test_folders_include_only_what_the_table_allows(self):
        for path, names in self.includes.items():
            folder = os.path.dirname(path)
            for ours, name in names:
                if not ours or os.path.dirname(name) == folder:
                    continue
                with self.subTest(path=path):
                    self.assertTrue(matches(os.path.dirname(name), self.folders[folder]),
                                    f"{path} includes {name}: tests/scripts/modules.txt does not "
                                    f"allow {folder} to know {os.path.dirname(name)}")

    def test_the_table_allows_nothing_below(self):
        order = list(self.folders)
        for folder, allowed in self.folders.items():
            for it in order[order.index(folder) + 1:]:
                with self.subTest(folder=folder):
                    self.assertFalse(matches(it, allowed) and not it.startswith(folder + "/"),
                                     f"{folder} may include {it}, which stands below it")

    def test_libraries_stay_where_they_belong(self):
        for path, names in self.includes.items():
            for ours, name in names:
                for header, allowed in self.headers.items():
                    is_it = name.startswith(header) if header.endswith("/") else name == header
                    if ours or not is_it:
                        continue
                    with self.subTest(path=path):
                        self.assertTrue(matches(os.path.dirname(path), allowed),
                                        f"{path} includes <{name}>, which only "
                                        f"{', '.join(allowed)} may")

    def test_no_unit_leads_back_to_itself(self):
        graph = {unit_of(it): set() for it in self.includes}
        for path, names in self.includes.items():
            graph[unit_of(path)] |= {unit_of(name) for ours, name in names
                                     if ours and unit_of(name) != unit_of(path)}
        self.assertIsNone(find_circle(graph))

    def test_no_folder_is_too_full(self):
        units = collections.Counter(os.path.dirname(it) for it in {unit_of(p) for p in self.includes})
        for folder, count in units.items():
            with self.subTest(folder=folder):
                self.assertLessEqual(count, MOST_UNITS, f"{folder} holds {count} units: split it")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
