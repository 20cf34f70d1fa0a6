#include "tests/plugin/possible_bytes.h"

#include <fmt/format.h>

#include <algorithm>

namespace vc::test {

void PossibleBytes::apply(const Request& request) {
  for (uint64_t at = request.at; at < request.at + request.length; ++at) {
    // After a trim, bytes are zero or unchanged.
    if (request.kind == Request::Kind::kTrim) {
      trimmed_[at] = std::max(trimmed_[at], request.begun);
      continue;
    }
    if (version_[at] > request.begun) continue;
    // Older values are impossible now.
    sure_[at] = byte_of(request, at - request.at);
    version_[at] = request.begun;
  }
}

void PossibleBytes::observed(std::vector<std::byte> found) {
  sure_ = std::move(found);
  settle([](const Request& it) { return it.kind == Request::Kind::kTrim; });
  changes_.clear();
}

std::string PossibleBytes::complaint(const std::vector<std::byte>& found) const {
  std::vector<char> right(found.size());
  for (size_t at = 0; at < found.size(); ++at)
    right[at] =
        found[at] == sure_[at] || (trimmed_[at] > version_[at] && found[at] == std::byte{0});
  for (const Request& it : changes_)
    for (uint64_t i = 0; i < it.length; ++i)
      if (version_[it.at + i] < it.begun && found[it.at + i] == byte_of(it, i))
        right[it.at + i] = 1;
  const auto wrong = std::find(right.begin(), right.end(), char{0});
  if (wrong == right.end()) return {};
  const auto at = static_cast<size_t>(wrong - right.begin());
  std::string text =
      fmt::format("byte {} is {}, and {} bytes are wrong; it was {} for sure", at,
                  std::to_integer<int>(found[at]), std::count(wrong, right.end(), char{0}),
                  std::to_integer<int>(sure_[at]));
  for (const Request& it : changes_)
    if (it.at <= at && at < it.at + it.length) text += "\n  perhaps " + it.describe();
  return text;
}

}  // namespace vc::test
