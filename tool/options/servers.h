// Names of servers and pipes, where a command works on files.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace vc::tool {

// Returns an error if `name` is an NBD URI, "[ COMMAND ]" or "-".  `why` is such as "only files can
// be checked", and `advice` says what works instead.
Result<void> refuse_server(const std::string& name, std::string_view why, std::string_view advice);

}  // namespace vc::tool
