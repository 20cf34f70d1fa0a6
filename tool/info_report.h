// What `virt-compact info` prints.
#pragma once

#include <string>

#include "tool/image_info.h"
#include "tool/terminal.h"

namespace tool {

// For a person, in the words of `qemu-img info`.  With `verbose` also where the tables lie and what
// the header carries.  Ends with a newline.
std::string info_report(const ImageInfo& info, bool verbose, const Palette& palette);

// The keys of `qemu-img info --output=json`, and "file-length", and "disk-size" of a snapshot.
std::string info_report_json(const ImageInfo& info);

}  // namespace tool
