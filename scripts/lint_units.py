"""lint_units.py ROOT BUILD: joins sources for clang-tidy.

BUILD was set up by meson without unity.  Writes BUILD/units: each unit includes the sources of one module
that define no name twice, so that clang-tidy reads their headers once, and a compile_commands.json.  Prints
the paths of the units.  Units of tests have the settings of tests/.clang-tidy.  Leaves out the fuzzers, which an ordinary build does not compile.
"""

import json
import pathlib
import re
import shlex
import shutil
import sys

# One unit takes a minute or two; more sources a unit would leave a processor without work at the end.
MOST_SOURCES = 24

# What a line that is not indented can define.  Declarations in namespaces are not indented, either.
DEFINITION = re.compile(
    r'^(?:struct|class|union|enum class|enum) (?:\w+\([^)]*\) )?(\w+)'
    r'|^using (\w+) ='
    r'|^  (k\w+)(?: = [^;{}()\n]*?)?,?(?:  //.*)?$'  # an enumerator
    r'|^#define (\w+)'
    r'|^(?!using namespace |namespace )(?=\S)(?:[\w:<>,&*\[\] ]+?[ &*])(\w+|operator\S+?)(?: =|\(|\{|\[|;)', re.MULTILINE)
IMPORT = re.compile(r'^using ((?:\w+::)+(\w+));', re.MULTILINE)
# The folders of meson's targets: sources name their headers from the root.
MODULE = re.compile('-I[^/]')


def imports(source):
    """Returns what the names stand for that a source takes from other namespaces."""
    return {name: whole for whole, name in IMPORT.findall(source.read_text())}


def names(source):
    """Returns the names that a source may define outside of classes and functions."""
    return {name for found in DEFINITION.findall(source.read_text()) for name in found if name}


def settings(entry):
    """Returns the arguments of a compile command without the names of its files."""
    kept = []
    arguments = iter(shlex.split(entry['command']))
    for argument in arguments:
        if argument in ('-o', '-MF', '-MQ', '-c'):
            next(arguments)
        elif argument not in ('-MD', '-MP') and (argument in ('-I.', '-I..') or not MODULE.match(argument)):
            kept.append(argument)
    return tuple(kept)


class Unit:
    """Sources that define no name twice, and give no name two meanings."""

    def __init__(self):
        self.sources = []
        self.names = set()
        self.imports = {}

    def add(self, source):
        """Returns False if the source does not fit."""
        own, taken = names(source), imports(source)
        if len(self.sources) == MOST_SOURCES or own & (self.names | self.imports.keys()):
            return False
        if taken.keys() & self.names or any(self.imports.get(it, taken[it]) != taken[it] for it in taken):
            return False
        self.sources.append(source)
        self.names |= own
        self.imports |= taken
        return True


def unite(sources, shared):
    """Divides sources into units.  A source that defines a shared name is alone."""
    units = []
    alone = [it for it in sources if names(it) & shared]
    for source in sources:
        if source not in alone and not any(it.add(source) for it in units):
            units.append(Unit())
            units[-1].add(source)
    return [it.sources for it in units] + [[it] for it in alone]


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    build = pathlib.Path(sys.argv[2]).resolve()
    modules = {}
    for entry in json.loads((build / 'compile_commands.json').read_text()):
        source = (build / entry['file']).resolve()
        if not source.is_relative_to(root / 'tests' / 'fuzz'):
            modules.setdefault((settings(entry), source.relative_to(root).parts[0]), set()).add(source)
    folder = build / 'units'
    (folder / 'tests').mkdir(parents=True, exist_ok=True)
    shutil.copy(root / 'tests' / '.clang-tidy', folder / 'tests')
    # Tests use these names without their namespace.
    shared = set().union(*(names(it) for it in (root / 'tests' / 'support').glob('*.h')))
    shared |= {it.name for it in root.iterdir() if it.is_dir()}  # namespaces
    commands = []
    for (arguments, module), sources in sorted(modules.items(), key=lambda it: str(it[0][1])):
        is_test = module == 'tests'
        for unit in unite(sorted(sources), shared if is_test else set()):
            path = folder / ('tests' if is_test else '') / f'{len(commands)}.cc'
            path.write_text(''.join(f'#include "{it}"\n' for it in unit))
            commands.append({'directory': str(build), 'file': str(path),
                             'command': shlex.join([*arguments, '-c', str(path)])})
            print(path)
    (folder / 'compile_commands.json').write_text(json.dumps(commands))


if __name__ == '__main__':
    main()
