// What `virt-compact space` prints.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "guest/inspection.h"
#include "tool/terminal.h"

namespace tool {

struct SpaceReport {
  struct Disk {
    std::string name;
    uint64_t size = 0;       // bytes
    uint64_t free = 0;       // bytes that no filesystem of the guest uses
    uint64_t free_data = 0;  // of these, bytes that the image stores
  };
  std::vector<Disk> disks;
  guest::Inspection inspection;
  std::vector<uint64_t> free_data;  // of each volume, in their order
  bool approximate = false;         // a guest may be running
};

std::string space_report(const SpaceReport& report, const Palette& palette);
std::string space_report_json(const SpaceReport& report);

}  // namespace tool
