// Errors that occur after the requested change has taken effect.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace vc {

// Prepends `state`, the state after the change ("disk.qcow2 is the new disk"), to the error of
// `result`, if it has one.  So the message does not suggest that nothing has changed.
template <typename T>
Result<T> took_effect(Result<T> result, std::string_view state) {
  if (result) return result;
  return fail(std::move(result).error().with_context(std::string(state) +
                                                     ", but an error occurred after that"));
}

}  // namespace vc
