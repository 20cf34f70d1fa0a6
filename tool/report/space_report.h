// What `virt-compact space` prints.
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
  std::vector<uint64_t> free_data;  // of each volume, in their order
  bool approximate = false;         // a guest may be running
};

// Why nothing of a volume is called free; empty if it is believed.
std::string why_not_free(const guest::Volume& volume);
// A line for each volume that is kept whole, and each disk that cannot be read.
std::string kept_whole(const guest::Inspection& inspection);
// What an inspection says of a volume, sizes in bytes.
nlohmann::ordered_json volume_json(const guest::Volume& volume);

// The same of all volumes, with what is free and stored of the disk.
nlohmann::ordered_json free_space_json(const copy::FreeSpace& space);

std::string space_report(const SpaceReport& report, const Palette& palette);
std::string space_report_json(const SpaceReport& report);

}  // namespace vc::tool
