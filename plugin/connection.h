// A connection of the plugin, and how its callbacks report errors.
#pragma once

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <atomic>
#include <cerrno>
#include <memory>

#include "base/printable.h"
#include "base/result.h"
#include "nbdkit/serving/guarded.h"
#include "plugin/served_image.h"

namespace vc::plugin {

struct Connection {
  std::shared_ptr<ServedDisk> served;
  bool writable = false;
  std::atomic<bool> changed{false};  // since the last flush
};

inline Connection& connection_of(void* handle) {
  return *static_cast<Connection*>(handle);
}

// Like nbdkit::guarded(), and sets the errno of the reply.
template <typename Value, typename Work>
Value guarded(Value failed, Work work) noexcept {
  int err = 0;
  const Value value = nbdkit::guarded(failed, &err, work);
  if (err != 0) nbdkit_set_error(err);
  return value;
}

// Reports an error with nbdkit_error(), and sets the errno of the reply.
inline void report(const Error& error) {
  nbdkit_error("%s", printable(error.message()).c_str());
  // nbdkit treats EOPNOTSUPP as a valid reply, not as an error: see on_zero().
  nbdkit_set_error(error.errnum() == EOPNOTSUPP ? EIO : error.errnum());
}

// Returns 0, or -1 after nbdkit_error().
inline int answer(const Result<void>& result) {
  if (result) return 0;
  report(result.error());
  return -1;
}

}  // namespace vc::plugin
