// Presets for the layout of an image.
#pragma once

#include <string>

#include "base/result.h"
#include "copy/sink/image_options.h"
#include "qcow2/format/codec.h"

namespace vc::tool {

struct CopyProfile {
  const char* name;
  const char* description;  // its settings and its purpose
  unsigned cluster_bits;
  bool extended_l2;
  qcow2::Compression compression;
};

// Finds "sequential", "random" or "archive". Other names are errors.
Result<const CopyProfile*> find_profile(const std::string& name);

}  // namespace vc::tool
