// Errors that come when what was asked for has happened already.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace qcow2 {

// What goes wrong after a change cannot be seen any more as if nothing had changed.  Puts `state`,
// what is true now ("disk.qcow2 is the new disk"), in front of the error of `result`, if it has
// one.
template <typename T>
Result<T> took_effect(Result<T> result, std::string_view state) {
  if (result) return result;
  return fail(std::move(result).error().with_context(std::string(state) +
                                                     ", but an error came after that"));
}

}  // namespace qcow2
