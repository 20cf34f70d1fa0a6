// The output of `virt-compact info`.
#pragma once

#include <string>
#include <vector>

#include "inspect/image_info.h"
#include "tool/terminal/terminal.h"

namespace vc::tool {

// Returns the report as text, with the labels of `qemu-img info`. `verbose`: also the locations of
// the tables and the contents of the header. Ends with a newline.
std::string info_report(const inspect::ImageInfo& info, bool verbose, const Palette& palette);

// Returns JSON with the keys of `qemu-img info --output=json` and our own: "file-length",
// "features", "space", "fragmentation", "disk-size" of a snapshot, and "damage" and "missing" if
// not empty.
std::string info_report_json(const inspect::ImageInfo& info);
// Returns a JSON list, as with --backing-chain.
std::string info_report_json(const std::vector<inspect::ImageInfo>& chain);

}  // namespace vc::tool
