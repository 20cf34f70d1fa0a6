// Ready-made answers to how an image shall be laid out.
#pragma once

#include <string>

#include "base/result.h"
#include "copy/sink/image_options.h"
#include "qcow2/format/header.h"

namespace tool {

struct CopyProfile {
  const char* name;
  const char* description;  // what it picks, and what for
  unsigned cluster_bits;
  bool extended_l2;
  std::optional<qcow2::CompressionType> compression;  // nothing: none
  int level;                                          // of the codec; 0: its default
};

// sequential, random or archive.
qcow2::Result<const CopyProfile*> find_profile(const std::string& name);

}  // namespace tool
