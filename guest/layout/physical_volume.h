// Reads a physical volume of LVM2: its label, and the metadata of its volume group.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "guest/layout/lvm_text.h"
#include "guest/reading/byte_view.h"
#include "guest/reading/ranges.h"
#include "guest/reading/reading.h"

namespace vc::guest {

bool is_physical_volume(const Fields& head);

// A segment of a logical volume, in extents.
struct LvmSegment {
  struct Stripe {
    std::string volume;  // name of a physical volume in the group
    uint64_t extent;
  };
  uint64_t begin;
  uint64_t count;
  std::vector<Stripe> stripes;
  uint64_t stripe_size = 0;  // bytes; only with several stripes
};

struct LogicalVolume {
  std::string name;
  std::vector<LvmSegment> segments;  // in order, without gaps; empty: see left_alone
  std::string left_alone;            // reason not to read its content; empty: none
  bool is_hidden = false;            // a part of another volume
  bool is_known = true;              // false: an unknown type, which Linux may support
};

struct PhysicalVolume {
  std::string group;  // name of the group
  std::string group_id;
  std::string name;  // name of this physical volume in the group
  std::string id;
  LvmSection text;           // of the group; all members have the same text
  uint64_t text_size = 0;    // length of the text, bytes
  bool was_missing = false;  // the group was changed while this volume was missing
  uint64_t extent_size = 0;  // bytes
  uint64_t begin = 0;        // start of extent 0, bytes
  uint64_t extents = 0;
  Ranges free;                                // bytes that belong to no logical volume
  std::map<std::string, std::string> others;  // physical volumes of the group: name to ID
  std::vector<LogicalVolume> volumes;

  static Result<PhysicalVolume> read(const ByteView& view);
};

}  // namespace vc::guest
