// The output of `virt-compact map`, entry by entry.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "inspect/disk_map.h"
#include "tool/terminal/console.h"

namespace vc::tool {

class MapReport {
 public:
  // JSON in qemu-img's form, one entry per line, with "compressed" and, if it is true,
  // "compressed-bytes". Or a table of the data, as text.
  MapReport(const Console& console, bool json) : console_(console), json_(json) {}

  Result<void> begin();
  // `file`: the file that the offset refers to.
  Result<void> add(const inspect::MapEntry& entry, const std::string& file);
  Result<void> end();

 private:
  Result<void> put(std::string_view text);
  void add_json(const inspect::MapEntry& entry);

  const Console& console_;
  const bool json_;
  bool first_ = true;
  std::string buffer_;
};

}  // namespace vc::tool
