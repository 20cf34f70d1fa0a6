// Sets every field of the header to boundary values. An image that QEMU does not open is not valid
// for us, and an image that QEMU finds valid is valid for us.
#include <fmt/format.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/interop/image_editor.h"
#include "tests/qcow2/check/both_checks.h"
#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::checks {

namespace {

using Editor = interop::ImageEditor;
using support::run_ok;
using support::TempDirectory;

constexpr uint64_t kCluster = 64 << 10;

struct Field {
  std::string name;
  uint64_t at;
  unsigned bytes;
  bool flags = false;
};

const std::vector<Field> kFields{
    {"magic", 0, 4},
    {"version", Editor::kVersion, 4},
    {"backing offset", Editor::kBackingOffset, 8},
    {"backing length", Editor::kBackingLength, 4},
    {"cluster bits", Editor::kClusterBits, 4},
    {"size", Editor::kSize, 8},
    {"encryption", Editor::kCryptMethod, 4},
    {"L1 entries", Editor::kL1Size, 4},
    {"L1 offset", Editor::kL1Offset, 8},
    {"refcount table offset", Editor::kRefcountTableOffset, 8},
    {"refcount table clusters", Editor::kRefcountTableClusters, 4},
    {"snapshots", Editor::kSnapshotCount, 4},
    {"snapshot offset", Editor::kSnapshotOffset, 8},
};
const std::vector<Field> kFieldsV3{
    {"incompatible", Editor::kIncompatible, 8, true},
    {"compatible", Editor::kCompatible, 8, true},
    {"autoclear", Editor::kAutoclear, 8, true},
    {"refcount order", Editor::kRefcountOrder, 4},
    {"header length", Editor::kHeaderLength, 4},
    {"compression type", Editor::kCompressionType, 1},
    {"padding", Editor::kCompressionType + 1, 4},
};

// Returns the types and lengths of all extensions, and of the end mark.
std::vector<Field> extension_fields(const Editor& image) {
  std::vector<Field> fields;
  uint64_t at = image.get32(Editor::kVersion) == 2 ? 72 : image.get32(Editor::kHeaderLength);
  for (;;) {
    const uint32_t type = image.get32(at);
    fields.push_back({fmt::format("type of extension {:#x}", type), at, 4});
    fields.push_back({fmt::format("length of extension {:#x}", type), at + 4, 4});
    if (type == 0) return fields;
    at += 8 + (image.get32(at + 4) + 7) / 8 * 8;
  }
}

uint64_t get(const Editor& image, const Field& field) {
  const uint64_t value = field.bytes == 8 ? image.get64(field.at) : uint64_t{image.get32(field.at)};
  return field.bytes == 1 ? value >> 24 : value;
}
void put(Editor& image, const Field& field, uint64_t value) {
  if (field.bytes == 8) return image.put64(field.at, value);
  if (field.bytes == 4) return image.put32(field.at, static_cast<uint32_t>(value));
  image.bytes().at(field.at) = static_cast<std::byte>(value);
}

// Returns limits of fields and types, offsets of other structures, and neighbours of the right
// value.
std::set<uint64_t> values(const Field& field, uint64_t now) {
  std::set<uint64_t> all{0, UINT64_MAX};
  if (field.flags) {
    for (unsigned bit = 0; bit < 64; bit += bit < 8 ? 1 : 13) all.insert(uint64_t{1} << bit);
    all.insert({3, 12, 20, 28});
  } else {
    all.insert({1, 2, 3, now - 1, now + 1, 2 * now, 8, 9, 16, 21, 22, 104, 105, 112, 1023, 1024});
    all.insert({INT32_MAX, uint64_t{1} << 31, UINT32_MAX, 4 << 20, (4 << 20) + 1});
    all.insert({0xe2792aca, 0x6803f857, 0x23852875, 0x0537be77, 0x44415441});
    for (uint64_t cluster : {1, 2, 3, 4, 5, 16}) all.insert(cluster * kCluster);
    all.insert({kCluster - 1, kCluster + 8, uint64_t{1} << 40, uint64_t{1} << 55});
    all.insert({uint64_t{1} << 63, INT64_MAX, (uint64_t{1} << 63) - kCluster, UINT64_MAX << 16});
  }
  std::set<uint64_t> fit;
  for (const uint64_t value : all) {
    const uint64_t kept = field.bytes == 8 ? value : value & ((uint64_t{1} << 8 * field.bytes) - 1);
    if (kept == value || value == UINT64_MAX) fit.insert(kept);
  }
  fit.erase(now);
  return fit;
}

// An intended difference from QEMU, with its reason.
struct Difference {
  const char* why;
  const char* qemu_says;  // a part of the message; empty: it opens the image
  const char* we_say;     // a part of the message; empty: no error
};
const std::vector<Difference> kDifferences{
    {"metadata is in the clear: it is checked without the key", "encrypt.key-secret", ""},
    {"another file is missing: the image alone is checked", "Could not open backing file", ""},
    {"another file is missing: the image alone is checked", "No such file", ""},
    {"the name may be given when the machine starts", "'data-file' is required", ""},
    {"the name may be given when the machine starts", "driver requires a file name", ""},
    {"the format says that the length is a multiple of 8", "", "header_length is"},
    {"a name is not cut where a NUL stands inside of it", "", "holds a NUL byte"},
};

const Difference* listed(const std::string& qemu, const std::string& ours) {
  for (const Difference& it : kDifferences) {
    const std::string theirs = it.qemu_says;
    const std::string mine = it.we_say;
    if (theirs.empty() != qemu.empty() || mine.empty() != ours.empty()) continue;
    if (qemu.find(theirs) != std::string::npos && ours.find(mine) != std::string::npos) return &it;
  }
  return nullptr;
}

class Comparison {
 public:
  explicit Comparison(std::string path) : path_(std::move(path)) {}

  void compare(const Editor& good, const Field& field, uint64_t value) {
    Editor image = good;
    put(image, field, value);
    image.save_as(path_);
    const QemuAnswer qemu = ask_qemu(path_);
    const OurAnswer ours = ask_us(path_);
    ++compared_;
    const bool both_refuse = !qemu.has_json && ours.exit_code != 0;
    const bool both_find = qemu.has_json && (qemu.exit_code == 0) == (ours.exit_code == 0);
    if (both_refuse || both_find) return;
    const Difference* const known = listed(qemu.has_json ? "" : qemu.says, ours.error + ours.says);
    if (known) used_.insert(known);
    INFO(field.name << " = " << fmt::format("{:#x}", value) << "\nqemu-img, exit code "
                    << qemu.exit_code << ": " << qemu.says << "\nwe, exit code " << ours.exit_code
                    << ": " << ours.error << ours.says);
    CHECK(known != nullptr);
  }

  size_t compared() const { return compared_; }
  const std::set<const Difference*>& used() const { return used_; }

 private:
  const std::string path_;
  size_t compared_ = 0;
  std::set<const Difference*> used_;
};

Editor make(const TempDirectory& folder, const std::vector<std::string>& options,
            bool snapshot = false) {
  const std::string path = folder / "good.qcow2";
  std::vector<std::string> create{"qemu-img", "create", "-q", "-f", "qcow2"};
  create.insert(create.end(), options.begin(), options.end());
  create.insert(create.end(), {path, "4M"});
  run_ok(create);
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 17 0 192k", path});
  if (snapshot) run_ok({"qemu-img", "snapshot", "-c", "one", path});
  return Editor(path);
}

}  // namespace

TEST_CASE("each value of a header field is accepted if QEMU accepts it", "[header-fields]") {
  const TempDirectory folder;
  run_ok({"truncate", "-s", "4M", folder / "base"});
  const std::vector<Field> names{kFields.at(2), kFields.at(3)};
  const std::vector<Field> snapshots{kFields.at(11), kFields.at(12)};
  struct Case {
    Editor image;
    std::vector<Field> fields;  // the fields of all versions
  };
  std::vector<Case> cases;
  cases.push_back({make(folder, {"-o", "compat=1.1"}), kFields});
  cases.push_back({make(folder, {"-o", "compat=0.10"}), kFields});
  cases.push_back({make(folder, {"-o", "extended_l2=on,compression_type=zstd"}, true), snapshots});
  cases.push_back({make(folder, {"-b", folder / "base", "-F", "raw"}), names});
  cases.push_back({make(folder, {"-o", "data_file=" + (folder / "data")}), names});

  Comparison comparison(folder / "changed.qcow2");
  for (auto& [image, fields] : cases) {
    if (image.get32(Editor::kVersion) >= 3)
      fields.insert(fields.end(), kFieldsV3.begin(), kFieldsV3.end());
    for (const Field& it : extension_fields(image)) fields.push_back(it);
    for (const Field& field : fields)
      for (const uint64_t value : values(field, get(image, field)))
        comparison.compare(image, field, value);
  }
  CHECK(comparison.compared() > 1500);
  // A difference that did not occur must not be listed.
  for (const Difference& it : kDifferences) {
    INFO(it.why << ": " << it.qemu_says << " / " << it.we_say);
    CHECK(comparison.used().count(&it) == 1);
  }
}

}  // namespace vc::checks
