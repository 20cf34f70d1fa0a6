"""Checks the benchmark's arithmetic and its command lines."""

import contextlib
import io
import os
import sys
import tempfile
import unittest
import unittest.mock

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../scripts/benchmark"))

import disk  # noqa: E402
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
        names = [row.name for row in rows.ALL]
        self.assertEqual(len(names), len(set(names)))
        for row in rows.COPIES:
            for command in (row.ours, row.peer, row.prepare, row.before, row.source):
                self.assertNotIn("{", command.format(**words))
        for row in rows.WRITES:
            self.assertNotIn("{", row.fio.format(part=1))
        for row in rows.LIMITS:
            self.assertNotIn("{", row.ours.format(**words))

    def test_filesystems_of_rows_can_be_made(self):
        for row in rows.COPIES + rows.LIMITS:
            if row.filesystem:
                self.assertIn(row.filesystem, disk.FILESYSTEMS)

    def test_what_is_larger_than_theirs_is_told(self):
        for row in (row for row in rows.COPIES if row.largest):
            most = int(row.largest * 1000)
            for ours, verdict in ((5, ""), (most, ""), (most + 1, "larger")):
                told = io.StringIO()
                with contextlib.redirect_stdout(told):
                    main.Bench.show(None, row, {"ours": [1], "peer": [100], "peaks": {},
                                                "sizes": {"ours": ours, "peer": 1000}})
                self.assertEqual("larger" in told.getvalue(), bool(verdict), row.name)

    def test_what_is_over_a_limit_is_told(self):
        row = rows.Limit("space", "ext4", seconds=2, mib=64)
        for seconds, kib, verdict in ((2, 64 << 10, ""), (2.1, 1, "missed"), (1, 65 << 10, "large")):
            told = io.StringIO()
            with contextlib.redirect_stdout(told):
                main.Bench.show_limit(None, row, {"ours": [0, seconds, 9], "peaks": {"ours": kib}})
            words = [word for word in ("missed", "large") if word in told.getvalue()]
            self.assertEqual(words, [verdict] if verdict else [])

    def test_rows_of_one_disk_share_it_and_the_next_disk_replaces_it(self):
        made = []

        def make(image, size, folder, filesystem):
            made.append((filesystem, size))
            with open(image, "wb") as file:
                file.write(b"x")

        with tempfile.TemporaryDirectory() as folder, unittest.mock.patch("disk.make", make), \
                unittest.mock.patch("shutil.disk_usage", lambda _: unittest.mock.Mock(free=1 << 60)), \
                contextlib.redirect_stderr(io.StringIO()):
            bench = main.Bench(main.parse(["--build", "build"]), folder)
            shared = bench.words("out")["disk"]
            for wanted in (("ext4", 5), ("ext4", 5), ("xfs", 5)):
                bench.use_disk(wanted)
                self.assertTrue(os.path.exists(bench.words("out")["disk"]))
                self.assertNotEqual(bench.words("out")["disk"], shared)
            bench.use_disk(None)
            self.assertEqual(bench.words("out")["disk"], shared)
            self.assertEqual(os.listdir(folder), [])
        self.assertEqual(made, [("ext4", 5), ("xfs", 5)])

    def test_quick_leaves_large_disks_out(self):
        all_names, quick = ([row.name for row in main.Bench(main.parse(words), ".").rows()]
                            for words in ([], ["--quick"]))
        self.assertEqual([name for name in all_names if "-large" not in name], quick)
        self.assertLess(len(quick), len(all_names))

    def test_rows_that_take_minutes_run_once_unless_told(self):
        row = next(row for row in rows.COPIES if row.once)
        self.assertEqual(main.Bench(main.parse([]), ".").runs_of(row), 1)
        self.assertEqual(main.Bench(main.parse(["--runs", "4"]), ".").runs_of(row), 4)

    def test_rows_are_chosen_by_name(self):
        self.assertEqual(main.parse(["--only", "plain,zstd"]).only, ["plain", "zstd"])
        with self.assertRaises(SystemExit):
            main.parse(["--only", "plane"])


if __name__ == "__main__":
    unittest.main()
