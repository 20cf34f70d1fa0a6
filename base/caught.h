// Exceptions of a piece of work as errors.
#pragma once

#include <cerrno>
#include <exception>
#include <new>
#include <string>
#include <utility>

#include "base/result.h"

namespace vc {

// Calls `work` and returns its result, a Result.  Returns an exception of `work` as an error, with
// `what` in front.  An exception that leaves the function of a thread would end the process.
template <typename Work>
auto caught(const std::string& what, Work&& work) -> decltype(work()) {
  try {
    return std::forward<Work>(work)();
  } catch (const std::bad_alloc&) {
    return fail(Error::system(ENOMEM, what));
  } catch (const std::exception& exception) {
    return fail(Error::invalid(what + ": " + exception.what()));
  }
}

}  // namespace vc
