// The output of `virt-compact map`, entry by entry.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "inspect/disk_map.h"
#include "tool/terminal/console.h"

namespace tool {

class MapReport {
 public:
  // JSON in qemu-img's form, one entry per line, with "compressed" and, if it is true,
  // "compressed-bytes". Or a table of the data, as text.
  MapReport(const Console& console, bool json) : console_(console), json_(json) {}

  qcow2::Result<void> begin();
  // `file`: the file that the offset refers to.
  qcow2::Result<void> add(const copy::MapEntry& entry, const std::string& file);
  qcow2::Result<void> end();

 private:
  qcow2::Result<void> put(std::string_view text);
  void add_json(const copy::MapEntry& entry);

  const Console& console_;
  const bool json_;
  bool first_ = true;
  std::string buffer_;
};

}  // namespace tool
