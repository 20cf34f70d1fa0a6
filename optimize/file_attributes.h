// Who may do what with a file: owner, mode, and extended attributes, which ACLs and SELinux labels
// are.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace vc::optimize {

// Makes those of the open file `to` what those of `from` are.  An error if the owner, the mode or
// an ACL cannot be set; the names of other attributes that cannot are returned.
Result<std::vector<std::string>> copy_attributes(int from, int to);

}  // namespace vc::optimize
