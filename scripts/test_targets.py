"""Prints the ninja targets that the tests of a suite need: test_targets.py BUILD-FOLDER SUITE."""

import json
import os
import subprocess
import sys


def introspect(folder, what):
    command = ["meson", "introspect", what, folder]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main():
    folder, suite = sys.argv[1:]
    wanted = {
        target
        for test in introspect(folder, "--tests")
        if any(name == suite or name.endswith(":" + suite) for name in test["suite"])
        for target in test["depends"]
    }
    if not wanted:
        sys.exit(f"test_targets.py: no test is in the suite '{suite}'")
    for target in introspect(folder, "--targets"):
        if target["id"] in wanted:
            for path in target["filename"]:
                print(os.path.relpath(path, folder))


main()
