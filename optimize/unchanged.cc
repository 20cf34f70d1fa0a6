#include "optimize/unchanged.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/retry.h"
#include "storage/directory.h"

namespace vc::optimize {

namespace {

// A block device has no modification time, so its content cannot be compared.
bool same_content(const struct stat& a, const struct stat& b) {
  if (!S_ISREG(a.st_mode)) return true;
  return a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec &&
         a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

}  // namespace

Result<Unchanged> Unchanged::since_now(const qcow2::Chain& chain) {
  Unchanged now;
  for (const auto& file : chain.files()) {
    struct stat status {};
    if (retry(::stat, file->name().c_str(), &status) != 0)
      return fail(Error::system(errno, file->name()));
    now.files_.push_back({file->name(), status});
  }
  return now;
}

Result<void> Unchanged::check() const {
  for (const File& file : files_) {
    struct stat status {};
    if (retry(::stat, file.name.c_str(), &status) != 0)
      return fail(Error::system(errno, file.name));
    if (FileIdentity::of(status) != FileIdentity::of(file.status))
      return fail(Error::protocol(
          EBUSY, fmt::format(
                     "{}: is no longer the file that it was at the start: the disk is not replaced",
                     file.name)));
    if (!same_content(status, file.status))
      return fail(Error::protocol(
          EBUSY,
          fmt::format("{}: another process has written to it during the run: the copy is discarded",
                      file.name)));
  }
  return {};
}

bool Unchanged::same_files(const Unchanged& other) const {
  return std::equal(files_.begin(), files_.end(), other.files_.begin(), other.files_.end(),
                    [](const File& a, const File& b) {
                      return FileIdentity::of(a.status) == FileIdentity::of(b.status);
                    });
}

}  // namespace vc::optimize
