// Copies access rights of a file: owner, mode, and extended attributes (with ACLs and SELinux
// labels).
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace vc::optimize {

// Copies owner, mode and extended attributes from the open file `from` to the open file `to`.
// Returns an error if the owner, the mode or an ACL cannot be set. Returns the names of other
// attributes that cannot be set.
Result<std::vector<std::string>> copy_attributes(int from, int to);

}  // namespace vc::optimize
