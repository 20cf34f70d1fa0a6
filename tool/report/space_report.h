// The output of `virt-compact space`.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "copy/source/free_space.h"
#include "guest/inspection.h"
#include "tool/terminal/terminal.h"

namespace vc::tool {

struct SpaceReport {
  struct Disk {
    std::string name;
    uint64_t size = 0;       // bytes
    uint64_t free = 0;       // bytes that no filesystem of the guest uses
    uint64_t free_data = 0;  // of these, bytes that the image stores
  };
  std::vector<Disk> disks;
  guest::Inspection inspection;
  std::vector<uint64_t> free_data;  // same for each volume, in their order
  bool approximate = false;         // a guest may be running
};

// Returns why none of the volume is reported as free. Empty if its metadata can be trusted.
std::string why_not_free(const guest::Volume& volume);
// Returns a line for each volume that is kept whole, and for each disk that cannot be read.
std::string kept_whole(const guest::Inspection& inspection);
// Returns the results of an inspection of a volume as JSON, sizes in bytes.
nlohmann::ordered_json volume_json(const guest::Volume& volume);

// Same for all volumes, with the free and the stored bytes of the disk.
nlohmann::ordered_json free_space_json(const copy::FreeSpace& space);

std::string space_report(const SpaceReport& report, const Palette& palette);
std::string space_report_json(const SpaceReport& report);

}  // namespace vc::tool
