"""The benchmark's own arithmetic, and that its command lines can be made."""

import contextlib
import io
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../scripts/benchmark"))

import main  # noqa: E402
import measure  # noqa: E402
import rows  # noqa: E402


class Bench(unittest.TestCase):
    def test_ratio_is_of_the_medians(self):
        self.assertEqual(measure.ratio([1, 2, 9], [4, 4, 100]), 0.5)

    def test_a_command_that_fails_is_no_time(self):
        with self.assertRaises(measure.Failed):
            measure.timed("echo broken >&2; exit 3")
        self.assertGreaterEqual(measure.timed("sleep 0.05"), 0.05)

    def test_memory_is_that_of_the_command(self):
        self.assertGreater(measure.peak_of("head -c 50M /dev/zero | tail -c 50M"), 40 * 1024)

    def test_every_row_has_a_name_and_a_command_line(self):
        words = dict.fromkeys(["disk", "out", "extra", "socket", "size", "vc", "plugin"], "word")
        names = [row.name for row in rows.COPIES + rows.WRITES]
        self.assertEqual(len(names), len(set(names)))
        for row in rows.COPIES:
            for command in (row.ours, row.peer, row.prepare, row.before, row.source):
                self.assertNotIn("{", command.format(**words))
        for row in rows.WRITES:
            self.assertNotIn("{", row.fio.format(part=1))

    def test_what_is_larger_than_theirs_is_told(self):
        row = next(row for row in rows.COPIES if row.smaller)
        for ours, verdict in ((5, ""), (10, ""), (11, "larger")):
            told = io.StringIO()
            with contextlib.redirect_stdout(told):
                main.Bench.show(None, row, {"ours": [1], "peer": [100], "peaks": {},
                                            "sizes": {"ours": ours, "peer": 10}})
            self.assertEqual("larger" in told.getvalue(), bool(verdict))

    def test_rows_are_chosen_by_name(self):
        self.assertEqual(main.parse(["--only", "plain,zstd"]).only, ["plain", "zstd"])
        with self.assertRaises(SystemExit):
            main.parse(["--only", "plane"])


if __name__ == "__main__":
    unittest.main()
