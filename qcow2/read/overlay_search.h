// Which images stand on a disk: nothing in a disk tells that it is a backing file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace qcow2 {

// The first QCOW2 image, among the files in the folder of `disk` (by its name, and
// without symbolic links) and `others`, that has `disk` as
// its backing file, by whatever name; nothing: none has.  Their headers are read, no more, without
// a lock; what cannot be read, and what is no image, is passed over.  `disk` itself is none.
std::optional<std::string> find_overlay(const std::string& disk,
                                        const std::vector<std::string>& others = {});

}  // namespace qcow2
