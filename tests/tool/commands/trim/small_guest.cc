#include "tests/tool/commands/trim/small_guest.h"

#include "tests/catch.h"
#include "tests/support/command_line.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"

namespace vc::trim_test {

using nlohmann::json;
using support::run;
using support::run_ok;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kExt4At = 1 * kMiB;
constexpr uint64_t kExt4Size = 16 * kMiB;
constexpr const char* kFiles = "/usr/share/common-licenses";

// Returns bytes that compress to about a half.
std::string letters(uint64_t length) {
  support::Random random(1);
  std::string text(length, 'x');
  for (char& it : text) it = static_cast<char>('a' + random.below(16));
  return text;
}

}  // namespace

SmallGuest::SmallGuest(const support::TempDirectory& folder)
    : folder_(folder), raw_(folder / "guest.raw") {
  support::write_file(raw_, letters(kSize));
  const std::string script = folder / "table";
  support::write_file(script, std::string("label: dos\nstart=2048,size=32768\n,6144,82\n,\n"));
  run_ok({"bash", "-c", R"(sfdisk -q "$1" < "$2")", "bash", raw_, script});
  const std::string volume = folder / "volume";
  support::write_file(volume, letters(kExt4Size));
  run_ok({"mke2fs", "-q", "-F", "-t", "ext4", "-L", "system", "-E", "nodiscard,lazy_itable_init=0",
          "-O", "^has_journal", "-d", kFiles, volume});
  support::patch_file(raw_, kExt4At, support::read_file(volume));
  support::write_file(volume, letters(3 * kMiB));
  run_ok({"mkswap", "-q", volume});
  support::patch_file(raw_, kSwapAt, support::read_file(volume));
}

std::string SmallGuest::complaint(const std::string& raw) const {
  const std::string volume = folder_ / "taken";
  support::write_file(volume, support::RawFile(raw).read(kExt4At, kExt4Size));
  const auto check = run({"e2fsck", "-f", "-n", volume});
  if (!check.ok()) return check.describe();
  for (const std::string name : {"GPL-3", "Apache-2.0", "GFDL-1.3"})
    if (run_ok({"debugfs", "-R", "cat /" + name, volume}).out !=
        run_ok({"cat", std::string(kFiles) + "/" + name}).out)
      return name + " differs";
  const auto rest = support::RawFile(raw).read(20 * kMiB, kSize - 20 * kMiB);
  if (rest != support::RawFile(raw_).read(20 * kMiB, kSize - 20 * kMiB))
    return "what is not known has changed";
  return "";
}

std::string SmallGuest::complaint_of_image(const std::string& image, bool check) const {
  if (check) {
    const auto checked = run({"qemu-img", "check", "-q", image});
    if (!checked.ok()) return checked.describe();
  }
  const std::string raw = folder_ / "converted";
  run_ok({"qemu-img", "convert", "-O", "raw", image, raw});
  return complaint(raw);
}

json trim(std::vector<std::string> words) {
  words.insert(words.begin(), {"trim", "--metadata", "--json"});
  const auto outcome = tool_test::run_tool(words);
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  return json::parse(outcome.out);
}

uint64_t freed(const json& report) {
  uint64_t sum = 0;
  for (const json& it : report["filesystems"])
    if (it["freed"].is_number()) sum += it["freed"].get<uint64_t>();
  return sum;
}

}  // namespace vc::trim_test
