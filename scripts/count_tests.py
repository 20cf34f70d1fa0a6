"""Counts the test cases of one or more runs of `meson test`: count_tests.py TESTLOG.JSON...

Meson counts programs, not test cases.  A Catch2 program prints the number of its cases at its end.  A
program without such a line counts as one case.  A case that cannot run on this machine prints
WARN("skipped: why"), and succeeds.  The exit code is 0 only if a case passed and none failed.
"""

import json
import re
import sys

ALL_PASSED = re.compile(r"^All tests passed \(.* in (\d+) test cases?\)$", re.M)
SOME_FAILED = re.compile(r"^test cases: +(\d+) \|(.*)$", re.M)
SKIPPED = re.compile(r"^ *skipped: (.*)$", re.M)
# A failure that Catch2 prints, or a report of a sanitizer.
COMPLAINT = re.compile(r"FAILED:$|(ERROR|WARNING): \w+Sanitizer|runtime error: ")
MOST_LINES = 60  # of one program's complaints


def complaints(test):
    """Returns the lines that show why a program failed, to be printed at the end."""
    lines = test.get("stdout", "").splitlines() + test.get("stderr", "").splitlines()
    wanted = set()
    for i, line in enumerate(lines):
        if COMPLAINT.search(line):
            wanted.update(range(max(i - 6, 0), min(i + 13, len(lines))))
    if not wanted:
        wanted.update(range(max(len(lines) - 20, 0), len(lines)))
    return [lines[i] for i in sorted(wanted)[:MOST_LINES]]


def count(test):
    """Returns passed, failed and skipped of one entry of Meson's log."""
    if test["result"] == "SKIP":
        return 0, 0, 1
    fine = test["result"] in ("OK", "EXPECTEDFAIL")
    output = test.get("stdout", "")
    # The summary of the run is the last match.
    if summaries := ALL_PASSED.findall(output):
        passed, failed = int(summaries[-1]), 0
    elif summaries := SOME_FAILED.findall(output):
        total, details = summaries[-1]
        numbers = re.search(r"(\d+) failed(?! as expected)", details)
        failed = int(numbers.group(1)) if numbers else 0
        passed = int(total) - failed
    else:
        passed, failed = int(fine), int(not fine)
    # It crashed, ran into a timeout, or a sanitizer reported an error at its end.
    if not fine and failed == 0:
        failed = 1
        passed = max(passed - 1, 0)
    skipped = min(len(SKIPPED.findall(output)), passed)
    return passed - skipped, failed, skipped


def main(logs):
    passed = failed = skipped = 0
    for log in logs:
        try:
            with open(log, encoding="utf-8", errors="replace") as lines:
                tests = [json.loads(line) for line in lines]
        except FileNotFoundError:
            tests = []
        if not tests:
            # The build failed, or no test has the name.
            print(f"no test ran: {log} is missing or empty")
            failed += 1
        for test in tests:
            counts = count(test)
            passed, failed, skipped = (a + b for a, b in zip((passed, failed, skipped), counts))
            for reason in SKIPPED.findall(test.get("stdout", "")):
                print(f"skipped in {test['name']}: {reason}")
            if counts[1] > 0:
                print(f"failed: {test['name']}, {test['result']}, in {log}")
                print("".join(f"  {line}\n" for line in complaints(test)), end="")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if passed > 0 and failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
