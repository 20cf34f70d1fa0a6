// virt-compact compact where there is no space: the image is sound and the same, and the next run
// completes it.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

namespace {

using Catch::Contains;
using support::Outcome;
using support::run_ok;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kCluster = 64 << 10;

// FOLDER/disk.qcow2: 40 MiB, out of order, some of which gets smaller; FOLDER/raw has the same
// content.
std::string make_disk(const support::TempDirectory& folder) {
  support::Random random(support::base_seed());
  std::vector<std::byte> bytes(40 * kMiB);
  random.fill(bytes);
  for (uint64_t at = 0; at < bytes.size(); at += kCluster)
    if (random.chance(60)) std::fill_n(&bytes[at + kCluster / 4], kCluster / 2, std::byte{7});
  support::write_file(folder / "noise", bytes);
  const std::string disk = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"});
  std::vector<std::string> command{"qemu-io", "-t", "unsafe", "-f", "qcow2", "-d", "unmap"};
  for (unsigned i = 0; i < 40; ++i)
    command.insert(command.end(), {"-c", "write -q -s " + (folder / "noise") + " " +
                                             std::to_string(i * 17 % 40) + "M 1M"});
  command.insert(command.end(), {"-c", "discard -q 3M 1M", "-c", "discard -q 20M 1M", disk});
  run_ok(command);
  run_ok({"qemu-img", "convert", "-O", "raw", disk, folder / "raw"});
  return disk;
}

// Prints the outcome of a run in a full place, and of another one with space, which `$more` makes.
constexpr const char* kTrial =
    "state() { qemu-img check -q -f qcow2 \"$image\" >&2; echo \"$1: check $?\"; "
    "qemu-img compare -q -f qcow2 -F raw \"$image\" \"$folder/raw\" >&2; echo \"$1: compare $?\"; "
    "}; "
    "\"$VIRT_COMPACT\" compact -q $levels \"$image\" 2>\"$folder/err\"; "
    "echo \"full: rc $?\"; state full; eval \"$more\"; "
    "\"$VIRT_COMPACT\" compact -q $levels \"$image\" >&2; echo \"again: rc $?\"; state again; "
    "cat \"$folder/err\" >&2";

void judge(const Outcome& outcome, bool fails) {
  INFO(outcome.describe());
  if (outcome.exit_code == 77) {
    WARN("skipped: not possible here");
    return;
  }
  CHECK_THAT(outcome.out, Contains("full: check 0") && Contains("full: compare 0"));
  CHECK_THAT(outcome.out, Contains("again: rc 0"));
  CHECK_THAT(outcome.out, Contains("again: check 0") && Contains("again: compare 0"));
  if (!fails && outcome.out.find("full: rc 0") != std::string::npos) return;
  CHECK_THAT(outcome.out, Contains("full: rc 1"));
  CHECK_THAT(outcome.err, Contains("its content is unchanged") && Contains("16 MiB"));
}

// Runs `prepare`, which mounts a filesystem at $folder/small, in namespaces of its own.
Outcome try_in(const support::TempDirectory& folder, const std::string& prepare,
               const std::string& levels) {
  const std::string script =
      "folder=$1; levels='" + levels +
      "'; image=\"$folder/small/disk.qcow2\"; mkdir -p \"$folder/small\"; { " + prepare +
      "; } >&2 || exit 77; " + kTrial;
  return support::run(
      {"unshare", ::geteuid() == 0 ? "-m" : "-rm", "sh", "-c", script, "sh", folder.path()});
}

// Fills the filesystem, but for `left` bytes.
std::string fill(const std::string& left) {
  return " && cp \"$folder/disk.qcow2\" \"$image\" && "
         "{ cat /dev/zero >\"$folder/small/fill\" 2>/dev/null; truncate -s -" +
         left + " \"$folder/small/fill\"; sync; more='rm \"$folder/small/fill\"'; }";
}

}  // namespace

TEST_CASE("compact on a full filesystem leaves the image sound and the same", "[compact]") {
  const support::TempDirectory folder;
  make_disk(folder);
  const std::string levels = GENERATE("-c", "--defragment", "--defragment -c", "--shrink");
  const std::string left = GENERATE("4k", "700k", "9M");
  CAPTURE(levels, left);
  // 9 MiB may be enough for what moves.
  const bool fails = levels != "--shrink" && left != "9M";
  judge(try_in(folder, "mount -t tmpfs -o size=80m none \"$folder/small\"" + fill(left), levels),
        fails);
}

TEST_CASE("compact on a full ext4 leaves the image sound and the same", "[compact]") {
  if (::geteuid() != 0) return;
  const support::TempDirectory folder;
  make_disk(folder);
  const std::string levels = GENERATE("-c", "--defragment");
  CAPTURE(levels);
  judge(try_in(folder,
               "truncate -s 80M \"$folder/fs\" && mke2fs -q -F -m 0 -t ext4 \"$folder/fs\" && "
               "mount -o loop \"$folder/fs\" \"$folder/small\"" +
                   fill("700k"),
               levels),
        true);
}

TEST_CASE("compact on a full device leaves the image sound and the same", "[compact]") {
  if (::geteuid() != 0) return;
  const support::TempDirectory folder;
  make_disk(folder);
  const std::string levels = GENERATE("-c", "--defragment");
  CAPTURE(levels);
  // The image has no free clusters, and ends where the device ends.
  judge(try_in(folder,
               "\"$VIRT_COMPACT\" compact -q \"$folder/disk.qcow2\" && "
               "image=$(losetup -f --show \"$folder/disk.qcow2\") && trap 'losetup -d $image' EXIT "
               "&& more='truncate -s +40M \"$folder/disk.qcow2\"; losetup -c $image'",
               levels),
        true);
}
