#include "tool/nightly/name_pattern.h"

#include <cstddef>
#include <optional>

namespace vc::tool {

bool matches_pattern(std::string_view pattern, std::string_view name) {
  size_t at = 0;
  size_t in_name = 0;
  // The last "*", and the end of what it stands for: a mismatch makes that longer. No earlier "*"
  // needs to be tried again.
  std::optional<size_t> star;
  size_t star_end = 0;
  while (in_name < name.size()) {
    if (at < pattern.size() && pattern[at] == '*') {
      star = at++;
      star_end = in_name;
    } else if (at < pattern.size() && (pattern[at] == '?' || pattern[at] == name[in_name])) {
      ++at;
      ++in_name;
    } else if (star) {
      at = *star + 1;
      in_name = ++star_end;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', at) == std::string_view::npos;
}

}  // namespace vc::tool
