// Words in the place of a file's name that are surely meant for an option.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace tool {

// Throws UsageError if `name`, which is to be the file `what` ("OUT"), looks like an option of an
// image (cluster_size=1M), the name of a format or that of a kind of report.  `lists`: the option
// that takes the first, `formats`: the one that takes the second, or what else to say.  "./qcow2"
// is a file.  For names that are written to: a wrong name of what is read is not found.
void refuse_option_like(const std::string& name, const char* what, const char* lists,
                        const char* formats);

// The key of an option of an image, if `name` gives one a value ("cluster_size=1M"); else empty.
std::string creation_option_in(const std::string& name);

// Looks at all disks that are to be replaced before any of them is: an error if one is not there,
// is no regular file, or stands there twice.  Whoever gives IN and OUT, as virt-sparsify wants it,
// is told of -o.
qcow2::Result<void> check_disks(const std::vector<std::string>& disks);

}  // namespace tool
