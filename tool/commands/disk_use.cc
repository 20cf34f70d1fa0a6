#include "tool/commands/disk_use.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "base/retry.h"
#include "libvirt/running_domains.h"

namespace vc::tool {

namespace {

bool exists(const std::string& path) {
  struct stat status {};
  return retry(::stat, path.c_str(), &status) == 0;
}

void print(const std::vector<std::string>& remarks, const Console& console) {
  for (const std::string& remark : remarks) console.warning(remark);
}

}  // namespace

Result<void> check_disk_use(const std::string& disk, const Console& console) {
  if (!exists(disk)) return {};
  ASSIGN_OR_RETURN(const auto remarks, libvirt::check_unused(disk));
  print(remarks, console);
  return {};
}

Result<bool> warn_of_disk_use(const std::string& disk, const Console& console) {
  if (!exists(disk)) return false;
  ASSIGN_OR_RETURN(const libvirt::DiskUse use, libvirt::find_disk_use(disk));
  print(use.remarks, console);
  if (use.domain.empty()) return false;
  console.warning(fmt::format("{}: is a disk of the {} {}: what is free is approximate", disk,
                              use.saved ? "saved" : "running", use.domain));
  return true;
}

}  // namespace vc::tool
