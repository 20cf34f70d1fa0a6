// Exception guards for nbdkit's C callbacks: an exception that leaves a callback terminates the
// server.
#pragma once

#include <nbdkit-common.h>

#include <cerrno>
#include <exception>
#include <new>

namespace vc::nbdkit {

// Calls `work` and returns its result. An exception is reported with nbdkit_error; then returns
// `failed` and sets *err to the errno.
template <typename Value, typename Work>
Value guarded(Value failed, int* err, Work work) noexcept {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    nbdkit_error("out of memory");
    *err = ENOMEM;
  } catch (const std::exception& exception) {
    nbdkit_error("%s", exception.what());
    *err = EIO;
  } catch (...) {
    nbdkit_error("an unknown exception");
    *err = EIO;
  }
  return failed;
}

// Same for callbacks without an errno.
template <typename Value, typename Work>
Value guarded(Value failed, Work work) noexcept {
  int err = 0;
  return guarded(failed, &err, work);
}

}  // namespace vc::nbdkit
