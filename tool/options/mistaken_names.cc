#include "tool/options/mistaken_names.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <utility>

#include "tool/options/arguments.h"
#include "tool/options/creation_options.h"
#include "tool/options/servers.h"

namespace vc::tool {

namespace {

std::string hint(const std::vector<std::string>& disks, const std::string& missing) {
  if (!creation_option_in(missing).empty())
    return fmt::format("use --options {} for options of the image", missing);
  if (disks.size() == 2 && missing == disks.back())
    return fmt::format(
        "to write the result to another file, use -o: virt-compact optimize -o {} {}", disks.back(),
        disks.front());
  return "each DISK is replaced; to write the result of one DISK to another file, use -o OUT";
}

}  // namespace

std::string creation_option_in(const std::string& name) {
  const size_t equals = name.find('=');
  if (equals == std::string::npos) return {};
  std::string key = name.substr(0, equals);
  const auto keys = creation_option_keys();
  return std::find(keys.begin(), keys.end(), key) == keys.end() ? std::string() : key;
}

void refuse_option_like(const std::string& name, const char* what, const char* lists,
                        const char* formats) {
  if (!creation_option_in(name).empty())
    throw UsageError(
        fmt::format("'{}' is in the place of {}: use {} for options of the image (./{} for a file "
                    "of this name)",
                    name, what, lists, name));
  if (name == "qcow2" || name == "raw")
    throw UsageError(
        fmt::format("'{}' is in the place of {}: use {} for the name of a format (./{} for a file "
                    "of this name)",
                    name, what, formats, name));
  if (name == "json" || name == "human")
    throw UsageError(
        fmt::format("'{}' is in the place of {}: use --json for a report in JSON (./{} for a file "
                    "of this name)",
                    name, what, name));
}

Result<void> check_disks(const std::vector<std::string>& disks, DiskKinds kinds) {
  std::map<std::pair<dev_t, ino_t>, std::string> seen;
  for (const std::string& disk : disks) {
    RETURN_IF_ERROR(refuse_server(
        disk, "only files can be optimized",
        "virt-compact copy --skip-free writes what its guest uses into a fresh image, virt-compact "
        "trim deallocates the rest behind the server"));
    struct stat status {};
    if (::stat(disk.c_str(), &status) != 0) {
      const int errnum = errno;
      if (errnum != ENOENT) return fail(Error::system(errnum, disk));
      return fail(Error::protocol(
          errnum, fmt::format("{}: nothing was changed: {}", Error::system(errnum, disk).message(),
                              hint(disks, disk))));
    }
    const bool is_device = S_ISBLK(status.st_mode) && kinds == DiskKinds::kFilesAndDevices;
    if (!S_ISREG(status.st_mode) && !is_device)
      return fail(Error::invalid(disk + (kinds == DiskKinds::kFiles
                                             ? ": is not a regular file: use virt-compact copy"
                                             : ": is neither a regular file nor a block device")));
    // Several names may lead to one device.
    const auto identity =
        is_device ? std::pair(status.st_rdev, ino_t{0}) : std::pair(status.st_dev, status.st_ino);
    const auto [it, fresh] = seen.emplace(identity, disk);
    if (!fresh)
      return fail(Error::invalid(
          it->second == disk ? fmt::format("{}: is given twice", disk)
                             : fmt::format("{}: is the same file as {}", disk, it->second)));
  }
  return {};
}

}  // namespace vc::tool
