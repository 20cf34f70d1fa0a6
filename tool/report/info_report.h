// What `virt-compact info` prints.
#pragma once

#include <string>
#include <vector>

#include "inspect/image_info.h"
#include "tool/terminal/terminal.h"

namespace tool {

// For a person, in the words of `qemu-img info`.  With `verbose` also where the tables lie and what
// the header carries.  Ends with a newline.
std::string info_report(const ImageInfo& info, bool verbose, const Palette& palette);

// The keys of `qemu-img info --output=json`, and more of our own: "file-length", "features",
// "space", "fragmentation", "disk-size" of a snapshot, and where there is reason "damage" and
// "missing".
std::string info_report_json(const ImageInfo& info);
// A list of them, as with --backing-chain.
std::string info_report_json(const std::vector<ImageInfo>& chain);

}  // namespace tool
