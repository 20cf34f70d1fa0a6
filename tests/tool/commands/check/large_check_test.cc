// Tests memory and time for images that are large, or claim to be.

#include "qcow2/format/l2_entry.h"
#include "tests/catch.h"
#include "tests/interop/image_editor.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::checks {

using interop::ImageEditor;
using support::run_ok;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kCluster = 64 << 10;
// Distance of the references: each is in another page of counters.
constexpr uint64_t kStep = uint64_t{917504} * 4096;
constexpr uint64_t kCopied = qcow2::kEntryCopied;

// With a sanitizer, memory cannot be compared with QEMU's tools.
constexpr bool kSanitized =
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    true;
#else
    false;
#endif

support::Outcome check(const std::string& path, uint64_t most_memory) {
  support::RunOptions options;
  options.timeout = std::chrono::seconds(60);
  const auto done =
      support::run({tool_test::virt_compact(), "check", "--output=json", path}, options);
  INFO(done.describe());
  CHECK(!done.timed_out);
  if (!kSanitized) CHECK(done.peak_memory < most_memory);
  return done;
}

}  // namespace

TEST_CASE("a disk of 16 TiB takes no more memory than a small one", "[large]") {
  const support::TempDirectory folder;
  const std::string path = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "16T"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q 0 1M", "-c", "write -q 5T 3M", "-c",
          "write -q 17592184995840 1M", path});
  CHECK(check(path, 64 * kMiB).exit_code == 0);
}

TEST_CASE("an L1 table that names one L2 table a million times", "[large]") {
  const support::TempDirectory folder;
  const std::string path = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "1M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q 0 1M", path});
  ImageEditor editor(path);
  const uint64_t table = editor.get64(editor.l1_entry_at(0)) & qcow2::kEntryOffsetMask;
  const uint64_t at = 4 * kMiB;
  for (uint64_t i = 0; i < 1 << 20; ++i) editor.put64(at + i * 8, kCopied | table);
  editor.put64(ImageEditor::kL1Offset, at);
  editor.put32(ImageEditor::kL1Size, 1 << 20);
  editor.save();
  const auto done = check(path, 320 * kMiB);
  CHECK(done.exit_code == 2);
}

TEST_CASE("65536 snapshots with overlapping L1 tables", "[large]") {
  const support::TempDirectory folder;
  const std::string path = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "1M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q 0 1M", path});
  ImageEditor editor(path);
  const uint64_t l2 = editor.get64(editor.l1_entry_at(0)) & qcow2::kEntryOffsetMask;
  const uint64_t snapshots = 4 * kMiB;
  const uint64_t l1 = 16 * kMiB;
  for (uint64_t i = 0; i < 65536; ++i) {
    // 40 bytes, and 16 bytes of extra data.
    editor.put64(snapshots + i * 56, l1 + i % 64 * kCluster);
    editor.put32(snapshots + i * 56 + 8, 4 << 20);
    editor.put32(snapshots + i * 56 + 36, 16);
  }
  for (uint64_t i = 0; i < 1 << 18; ++i) editor.put64(l1 + i * 8, l2);
  editor.put64(ImageEditor::kSnapshotOffset, snapshots);
  editor.put32(ImageEditor::kSnapshotCount, 65536);
  editor.save();
  support::resize_file(path, 64 * kMiB);
  CHECK(check(path, 320 * kMiB).exit_code == 2);
}

TEST_CASE("references scattered over a file of 4 TiB", "[large]") {
  const support::TempDirectory folder;
  const std::string path = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "4G"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q 0 4k", path});
  ImageEditor editor(path);
  const uint64_t l1 = editor.get64(ImageEditor::kL1Offset);
  const uint64_t entries = editor.get32(ImageEditor::kL1Size);
  const uint64_t tables = 16 * kMiB;
  // Each reference is in another page of counters, and there are more pages than memory.
  uint64_t host = 0;
  for (uint64_t i = 0; i < entries; ++i) {
    editor.put64(l1 + i * 8, kCopied | (tables + i * 4096));
    for (uint64_t j = 0; j < 512; ++j) {
      host = (host + kStep) % (uint64_t{1} << 41);
      editor.put64(tables + i * 4096 + j * 8, kCopied | (host / 4096 * 4096));
    }
  }
  editor.save();
  support::resize_file(path, uint64_t{1} << 42);
  // 1.4 GiB were seen: the limit of counters that are used everywhere. A longer file needs no more.
  const auto done = check(path, 2048 * kMiB);
  CHECK(done.exit_code > 0);
}

}  // namespace vc::checks
