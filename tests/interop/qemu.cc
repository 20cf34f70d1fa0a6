#include "tests/interop/qemu.h"

#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>

namespace vc::interop {

using support::run;
using support::run_ok;

namespace {

// Returns the value of `"name": ` in a flat JSON object, or an empty string.
std::string_view field(std::string_view object, const std::string& name) {
  const std::string key = fmt::format("\"{}\": ", name);
  const size_t at = object.find(key);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = object.substr(at + key.size());
  return rest.substr(0, rest.find_first_of(",}\n"));
}

uint64_t number(std::string_view text) {
  if (text.empty()) throw std::runtime_error("a number is missing in qemu-img's JSON");
  return std::strtoull(std::string(text).c_str(), nullptr, 10);
}

}  // namespace

std::vector<MapEntry> qemu_map(const std::string& image) {
  const std::string json = run_ok({"qemu-img", "map", "--output=json", image}).out;
  std::vector<MapEntry> entries;
  for (size_t at = json.find('{'); at != std::string::npos; at = json.find('{', at + 1)) {
    const std::string_view object = std::string_view(json).substr(at, json.find('}', at) - at + 1);
    MapEntry entry;
    entry.start = number(field(object, "start"));
    entry.length = number(field(object, "length"));
    entry.depth = static_cast<uint32_t>(number(field(object, "depth")));
    entry.present = field(object, "present") == "true";
    entry.zero = field(object, "zero") == "true";
    entry.data = field(object, "data") == "true";
    if (const auto offset = field(object, "offset"); !offset.empty()) entry.offset = number(offset);
    entries.push_back(entry);
  }
  return entries;
}

void convert_to_raw(const std::string& image, const std::string& raw) {
  run_ok({"qemu-img", "convert", "-O", "raw", image, raw});
}

std::string check_complaint(const std::string& image) {
  const auto check = run({"qemu-img", "check", "-f", "qcow2", "--output=json", image});
  // QEMU omits these fields if they are 0.
  for (const char* name : {"corruptions", "leaks"})
    if (!field(check.out, name).empty()) return "qemu-img check: " + check.describe();
  if (check.exit_code != 0 || field(check.out, "check-errors") != "0")
    return "qemu-img check: " + check.describe();
  return {};
}

std::string compare_complaint(const std::string& image, const std::string& image_format,
                              const std::string& raw) {
  const auto compare = run({"qemu-img", "compare", "-f", image_format, "-F", "raw", image, raw});
  return compare.ok() ? "" : "qemu-img compare: " + compare.describe();
}

uint64_t virtual_size(const std::string& image) {
  // In QEMU 8 and later, the file below comes first, with a size of its own.
  const auto info = run_ok({"qemu-img", "info", "-U", "--output=json", image}).out;
  return nlohmann::json::parse(info).at("virtual-size");
}

}  // namespace vc::interop
