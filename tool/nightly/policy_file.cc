#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/retry.h"
#include "storage/descriptor.h"
#include "storage/user_rights.h"
#include "tool/nightly/policy.h"
#include "tool/nightly/toml_value.h"

namespace vc::tool {

namespace {

Result<void> check_owner(const struct stat& status, const std::string& path) {
  if (status.st_uid != 0 && status.st_uid != ::geteuid())
    return fail(Error::invalid(
        fmt::format("{}: belongs to {}, who could let this command change any disk: change the "
                    "owner (chown root {})",
                    path, describe_user(status.st_uid), path)));
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return fail(Error::invalid(fmt::format(
        "{}: other users can change it: remove the permission (chmod go-w {})", path, path)));
  return {};
}

}  // namespace

Result<Policy> load_policy(const std::string& path) {
  // A pipe must not block the open.
  const Descriptor file(retry(::open, path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  struct stat status {};
  if (!file || retry(::fstat, file.get(), &status) != 0) return fail(Error::system(errno, path));
  if (!S_ISREG(status.st_mode))
    return fail(Error::invalid(path + ": is not a regular file: name the file of the policy"));
  RETURN_IF_ERROR(check_owner(status, path));
  // One byte more tells that the file is too long.
  std::string text(kMostTomlBytes + 1, '\0');
  size_t length = 0;
  while (length < text.size()) {
    const ssize_t got = retry(::read, file.get(), text.data() + length, text.size() - length);
    if (got < 0) return fail(Error::system(errno, path));
    if (got == 0) break;
    length += static_cast<size_t>(got);
  }
  text.resize(length);
  return read_policy(text, path);
}

}  // namespace vc::tool
