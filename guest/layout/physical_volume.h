// A physical volume of LVM2: its label, and the metadata of the volume group that it belongs to.
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

// A stretch of a logical volume.  In extents.
struct LvmSegment {
  struct Stripe {
    std::string volume;  // the name of a physical volume in the group
    uint64_t extent;
  };
  uint64_t begin;
  uint64_t count;
  std::vector<Stripe> stripes;
  uint64_t stripe_size = 0;  // bytes; of more than one stripe
};

struct LogicalVolume {
  std::string name;
  std::vector<LvmSegment> segments;  // by their begin, without a gap; empty: see left_alone
  std::string left_alone;            // why what is in it is not read; empty: it may be
  bool is_hidden = false;            // a part of another
  bool is_known = true;              // false: Linux could read what is in it
};

struct PhysicalVolume {
  std::string group;  // name
  std::string group_id;
  std::string name;  // of this one in the group
  std::string id;
  LvmSection text;           // of the group: the same on all that belong to it
  uint64_t text_size = 0;    // bytes that it was read from
  bool was_missing = false;  // the group was changed without it
  uint64_t extent_size = 0;  // bytes
  uint64_t begin = 0;        // bytes, where extent 0 is
  uint64_t extents = 0;
  Ranges free;  // bytes of the physical volume that no logical volume has
  std::map<std::string, std::string> others;  // physical volumes of the group: name to id
  std::vector<LogicalVolume> volumes;

  static Result<PhysicalVolume> read(const ByteView& view);
};

}  // namespace vc::guest
