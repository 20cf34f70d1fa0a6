#include "tests/optimize/small_guest.h"

#include <filesystem>
#include <span>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"

namespace vc::optimize_test {

namespace fs = std::filesystem;

using support::run_ok;
using support::TempDirectory;

namespace {

constexpr uint64_t kKept = (1 << 20) + 123;

std::vector<std::byte> noise(uint64_t length) {
  std::vector<std::byte> bytes(length);
  support::Random(7).fill(bytes);
  return bytes;
}

// Data that gets smaller.
std::vector<std::byte> text() {
  std::vector<std::byte> bytes(4 << 20);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i >> 9 & 0x3f);
  return bytes;
}

}  // namespace

SmallGuest::SmallGuest(const TempDirectory& folder, const std::string& options)
    : disk_(folder / "disk.qcow2"), original_(folder / ".original") {
  const TempDirectory scratch;
  fs::create_directory(scratch / "tree");
  support::write_file(scratch / "tree/gone", noise(32 << 20));
  support::write_file(scratch / "tree/kept", noise(kKept));
  support::write_file(scratch / "tree/text", text());
  const std::string raw = scratch / "raw";
  run_ok({"mke2fs", "-q", "-t", "ext4", "-d", scratch / "tree", raw, "96M"});
  run_ok({"debugfs", "-w", "-R", "rm gone", raw});
  std::vector<std::string> convert{"qemu-img", "convert", "-O", "qcow2"};
  if (!options.empty()) convert.insert(convert.end(), {"-o", options});
  convert.insert(convert.end(), {raw, original_});
  run_ok(convert);
  restore();
}

void SmallGuest::restore() const {
  fs::copy_file(original_, disk_, fs::copy_options::overwrite_existing);
}

std::string SmallGuest::complaint(bool clean) const {
  const auto check = support::run({"qemu-img", "check", "-q", "-f", "qcow2", disk_});
  if (!check.ok() && (clean || check.exit_code != 3)) return check.describe();
  const TempDirectory scratch;
  const std::string raw = scratch / "raw";
  const std::vector<std::vector<std::string>> commands{
      {"qemu-img", "convert", "-O", "raw", disk_, raw},
      {"e2fsck", "-fn", raw},
      {"debugfs", "-R", "dump kept " + scratch / "kept", raw},
      {"debugfs", "-R", "dump text " + scratch / "text", raw}};
  for (const auto& command : commands)
    if (const auto outcome = support::run(command); !outcome.ok()) return outcome.describe();
  if (support::read_file(scratch / "kept") != noise(kKept)) return "a file is another";
  return support::read_file(scratch / "text") == text() ? "" : "the text is another";
}

}  // namespace vc::optimize_test
