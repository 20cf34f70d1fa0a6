// The callbacks that nbdkit calls are C: an exception that leaves one ends the server.
#pragma once

#include <nbdkit-filter.h>

#include <cerrno>
#include <exception>
#include <new>

namespace filters {

// Calls `work`, which gives what the callback returns.  What it throws becomes an error of
// nbdkit's, `failed` the result, and *err the errno.
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
    nbdkit_error("an exception of an unknown kind");
    *err = EIO;
  }
  return failed;
}

// For callbacks that have no errno to give.
template <typename Value, typename Work>
Value guarded(Value failed, Work work) noexcept {
  int err = 0;
  return guarded(failed, &err, work);
}

}  // namespace filters
