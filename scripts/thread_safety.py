"""thread_safety.py ROOT BUILD: checks the use of locks with Clang's thread safety analysis.

BUILD was set up by meson with Clang.  Checks the sources that use base/mutex.h themselves, or include a
header that does: the members that a lock guards are private, so that other sources cannot reach them.
Prints Clang's errors.  The exit code is 1 if there are any.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

USES = re.compile(r'\b(GUARDED_BY|REQUIRES|REQUIRES_SHARED|CAPABILITY|MutexLock|SharedLock|ExclusiveLock)\b')
INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def uses_locks(path):
    return path.is_file() and path.name != 'mutex.h' and USES.search(path.read_text()) is not None


def is_selected(root, source):
    text = source.read_text()
    if USES.search(text):
        return True
    # Tests reach no guarded member.
    if source.is_relative_to(root / 'tests'):
        return False
    return any(uses_locks(root / name) for name in INCLUDE.findall(text))


def check(entry):
    """Returns Clang's errors for one entry of compile_commands.json."""
    arguments = shlex.split(entry['command'])
    kept = []
    skip = False
    for argument in arguments:
        if not skip and argument not in ('-c', '-o', '-MD', '-MQ', '-MF'):
            kept.append(argument)
        skip = argument in ('-o', '-MQ', '-MF')
    kept = [it for it in kept if it != 'ccache' and not it.endswith('/ccache')]
    done = subprocess.run(
        [*kept, '-fsyntax-only', '-Wthread-safety', '-Wthread-safety-beta', '-Werror'],
        cwd=entry['directory'], capture_output=True, text=True, check=False)
    return '' if done.returncode == 0 else done.stderr or f'{entry["file"]}: Clang failed\n'


def main():
    root, build = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    # A source may be compiled for several targets.
    entries = {}
    for entry in json.loads((build / 'compile_commands.json').read_text()):
        source = (pathlib.Path(entry['directory']) / entry['file']).resolve()
        if source.is_relative_to(root):
            entries.setdefault(source, entry)
    selected = [entry for source, entry in sorted(entries.items()) if is_selected(root, source)]
    if not selected:
        sys.exit('thread_safety.py: no source uses base/mutex.h')
    failed = False
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for errors in pool.map(check, selected):
            sys.stderr.write(errors)
            failed = failed or errors != ''
    sys.exit(1 if failed else 0)


main()
