"""Brings the translations up to date: translate.py [--check] ROOT.

Runs po4a, which adds new strings of the pages to po/pt_BR.po and marks changed ones as fuzzy. Code that has
no translation of its own is filled in as it is. Prints the strings that need a translator, and writes
README.pt_BR.md. The exit status is 1 if there are such strings.

With --check, ROOT is not changed, and a README.pt_BR.md that is not up to date is a failure, too.
"""

import argparse
import dataclasses
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile

CATALOG = os.path.join("po", "pt_BR.po")
README = "README.pt_BR.md"
UNQUOTED = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


def unquote(lines):
    """Returns the text of quoted lines, as C has them."""
    text = "".join(re.findall(r'^\s*(?:msg\w+ |#\| msg\w+ |#\| )?"(.*)"$', lines, re.M))
    return re.sub(r"\\(.)", lambda it: UNQUOTED.get(it[1], it[1]), text)


def quote(text):
    """Returns quoted lines, one for each line of the text."""
    quoted = re.sub(r'[\n\t"\\]', lambda it: {"\n": "\\n", "\t": "\\t"}.get(it[0], "\\" + it[0]), text)
    lines = [it for it in re.split(r"(?<=[^\\]\\n)|(?<=^\\n)", quoted) if it]
    if len(lines) <= 1:
        return f'"{quoted}"'
    return "\n".join(['""'] + [f'"{it}"' for it in lines])


@dataclasses.dataclass
class Entry:
    """A string of a catalogue (the file of gettext), with its comments."""
    text: str

    def part(self, begin):
        found = re.search(rf'^{begin} ".*"$(?:\n(?:#\| )?".*"$)*', self.text, re.M)
        return unquote(found[0]) if found else None

    @property
    def source(self):
        return self.part("msgid")

    @property
    def translation(self):
        return self.part("msgstr")

    @property
    def fuzzy(self):
        return re.search(r"^#,.*\bfuzzy\b", self.text, re.M) is not None

    @property
    def obsolete(self):
        return self.text.startswith("#~") or "\n#~" in self.text

    @property
    def is_header(self):
        return self.source == ""

    @property
    def is_code(self):
        """Returns true if it is an example, or names that no language translates."""
        text = self.source
        if "#. type: verbatim" in self.text or re.fullmatch(r"(?:    .*\n?)+", text):
            return True
        if "#. type: =head" in self.text or "#. type: Title" in self.text:
            return False
        return not re.search(r"[a-z]{2}", re.sub(r"[BCFIL]<[^<>]*>|[BCFIL]<<.*?>>|https?://\S+|`[^`]*`", "", text))

    @property
    def needs_translator(self):
        return not self.obsolete and not self.is_header and (self.fuzzy or not self.translation)

    def report(self):
        """Returns the string, or the lines of it that have changed."""
        before = self.part(r"#\| msgid")
        if not self.fuzzy or not before:
            return "not translated:\n" + self.source.rstrip("\n") + "\n"
        lines = difflib.unified_diff(before.splitlines(), self.source.splitlines(), lineterm="", n=0)
        changed = [it[0] + " " + it[1:] for it in list(lines)[2:] if not it.startswith("@@")]
        return "changed:\n" + "\n".join(changed) + "\n"

    def translate(self, text):
        without = re.sub(r"^#\|.*\n", "", self.text, flags=re.M)
        without = re.sub(r"^(#,.*?),? ?\bfuzzy\b,? ?", lambda it: it[1] + (" " if it[1] == "#," else ", "), without, flags=re.M)
        without = re.sub(r"^#,[ ,]*\n", "", re.sub(r"[ ,]+$", "", without, flags=re.M), flags=re.M)
        self.text = re.sub(r'^msgstr ".*"$(?:\n".*"$)*', lambda _: "msgstr " + quote(text), without, flags=re.M)


def read_catalog(path):
    with open(path, encoding="utf-8") as file:
        return [Entry(it.strip("\n")) for it in re.split(r"\n\n+", file.read()) if it.strip()]


def write_catalog(path, entries):
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n\n".join(it.text for it in entries) + "\n")


def fill_code(entries):
    """Fills in code that nobody has translated: it has no translation, or had itself as translation."""
    for entry in entries:
        if entry.needs_translator and entry.is_code and entry.translation in ("", entry.part(r"#\| msgid")):
            entry.translate(entry.source)


def without_date(text):
    return re.sub(r'^"POT-Creation-Date:.*\n', "", text, flags=re.M)


def run_po4a(folder):
    done = subprocess.run(["po4a", "--quiet", "--no-backups", "--msgmerge-opt", "--previous", "po/po4a.cfg"], cwd=folder,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          env={**os.environ, "LC_ALL": "C.UTF-8"})
    if done.returncode != 0:
        sys.exit("scripts/translate: po4a: " + done.stdout)


def copy_sources(root, folder):
    with open(os.path.join(root, "po", "po4a.cfg"), encoding="utf-8") as file:
        masters = re.findall(r"^\[type: \w+\] (\S+)", file.read(), re.M)
    for name in [*masters, CATALOG, os.path.join("po", "po4a.cfg")]:
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        if os.path.exists(os.path.join(root, name)):
            shutil.copy(os.path.join(root, name), os.path.join(folder, name))


def content(*path):
    try:
        with open(os.path.join(*path), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("root")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy_sources(arguments.root, folder)
        run_po4a(folder)
        catalog = os.path.join(folder, CATALOG)
        entries = read_catalog(catalog)
        if not arguments.check:
            fill_code(entries)
            write_catalog(catalog, entries)
            run_po4a(folder)
            # A catalogue in which only the date differs stays as it is.
            if without_date(content(catalog)) != without_date(content(arguments.root, CATALOG)):
                shutil.copy(catalog, os.path.join(arguments.root, CATALOG))
            shutil.copy(os.path.join(folder, README), arguments.root)
        missing = [it for it in read_catalog(catalog) if it.needs_translator]
        stale = content(folder, README) != content(arguments.root, README)
    for entry in missing:
        print(entry.report())
    if missing:
        print(f"{CATALOG}: {len(missing)} strings need a translation: run scripts/translate, and edit them there")
    elif stale:
        print(f"{README} is not up to date: run scripts/translate")
    return 1 if missing or stale else 0


if __name__ == "__main__":
    sys.exit(main())
