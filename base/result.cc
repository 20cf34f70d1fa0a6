#include "base/result.h"

#include <cerrno>
#include <system_error>

namespace vc {

Error Error::system(int errnum, std::string_view what) {
  // Unlike strerror, std::error_code is thread-safe.
  std::string message(what);
  message += ": ";
  message += std::generic_category().message(errnum);
  return Error(Kind::kSystem, errnum != 0 ? errnum : EIO, std::move(message));
}

Error Error::protocol(int errnum, std::string message) {
  return Error(Kind::kSystem, errnum != 0 ? errnum : EIO, std::move(message));
}

Error Error::corrupt(std::string message) {
  return Error(Kind::kCorrupt, EIO, std::move(message));
}

Error Error::unsupported(std::string message) {
  return Error(Kind::kUnsupported, ENOTSUP, std::move(message));
}

Error Error::invalid(std::string message) {
  return Error(Kind::kInvalid, EINVAL, std::move(message));
}

Error Error::cancelled() {
  return Error(Kind::kCancelled, ECANCELED, "interrupted");
}

Error Error::with_context(std::string_view context) && {
  std::string message;
  message.reserve(context.size() + 2 + message_.size());
  message += context;
  message += ": ";
  message += message_;
  return Error(kind_, errnum_, std::move(message));
}

}  // namespace vc
