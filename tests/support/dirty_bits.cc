#include "tests/support/dirty_bits.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/process.h"

namespace vc::support {

namespace {

nlohmann::json bitmaps_of(const std::string& image) {
  const auto info = nlohmann::json::parse(
      run_ok({"qemu-img", "info", "-f", "qcow2", "--output=json", image}).out);
  const auto& data = info.at("format-specific").at("data");
  return data.value("bitmaps", nlohmann::json::array());
}

}  // namespace

std::vector<bool> dirty_sectors(const std::string& image, const std::string& bitmap) {
  std::istringstream map(run_ok({"nbdinfo", "--map=qemu:dirty-bitmap:" + bitmap, "--", "[",
                                 "qemu-nbd", "-r", "-f", "qcow2", "-B", bitmap, image, "]"})
                             .out);
  std::vector<bool> sectors;
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t type = 0;
  std::string description;
  while (map >> offset >> length >> type >> description)
    sectors.insert(sectors.end(), (length + 511) / 512, type == 1);
  return sectors;
}

bool has_bitmap_flag(const std::string& image, const std::string& bitmap, const std::string& flag) {
  for (const auto& it : bitmaps_of(image))
    if (it.at("name") == bitmap)
      for (const auto& set : it.at("flags"))
        if (set == flag) return true;
  return false;
}

std::vector<std::string> bitmap_names(const std::string& image) {
  std::vector<std::string> names;
  for (const auto& it : bitmaps_of(image)) names.push_back(it.at("name"));
  return names;
}

}  // namespace vc::support
