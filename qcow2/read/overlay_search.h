// Finds images that use a disk as backing file; the disk itself does not record that.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace vc::qcow2 {

// Returns the first QCOW2 image that has `disk` as its backing file, under any name; nullopt if
// there is none.  Searches the files in the folder of `disk` (both by its name and with symbolic
// links resolved) and `others`, except `disk` itself.  Reads only headers, without locks; skips
// unreadable files and other formats.
std::optional<std::string> find_overlay(const std::string& disk,
                                        const std::vector<std::string>& others = {});

}  // namespace vc::qcow2
