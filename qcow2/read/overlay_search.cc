#include "qcow2/read/overlay_search.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "base/retry.h"
#include "qcow2/format/header.h"
#include "qcow2/read/chain.h"
#include "storage/directory.h"
#include "storage/file_storage.h"

namespace vc::qcow2 {

namespace fs = std::filesystem;

namespace {

bool stands_on(const std::string& path, const struct stat& disk) {
  struct stat status {};
  // Skips pipes and devices: opening one may have side effects.
  if (retry(::stat, path.c_str(), &status) != 0 || !S_ISREG(status.st_mode) ||
      FileIdentity::of(status) == FileIdentity::of(disk))
    return false;
  const auto file = FileStorage::open_readonly(path);
  if (!file) return false;
  const auto header = Header::read(**file, Header::Purpose::kTell);
  if (!header || header->backing_file.empty()) return false;
  const auto name = resolve_name(path, header->backing_file);
  return name && retry(::stat, name->c_str(), &status) == 0 &&
         FileIdentity::of(status) == FileIdentity::of(disk);
}

}  // namespace

std::optional<std::string> find_overlay(const std::string& disk,
                                        const std::vector<std::string>& others) {
  struct stat status {};
  if (retry(::stat, disk.c_str(), &status) != 0) return std::nullopt;
  std::vector<std::string> candidates = others;
  std::error_code ignored;
  const fs::path given(disk);
  for (const fs::path& path : {given, fs::canonical(given, ignored)}) {
    std::error_code failed;
    fs::directory_iterator it(path.has_parent_path() ? path.parent_path() : ".", failed);
    for (; !failed && it != fs::directory_iterator(); it.increment(failed))
      candidates.push_back(it->path().string());
  }
  // Makes the result deterministic.
  std::sort(candidates.begin(), candidates.end());
  const auto found = std::find_if(candidates.begin(), candidates.end(),
                                  [&](const std::string& path) { return stands_on(path, status); });
  return found == candidates.end() ? std::nullopt : std::optional(*found);
}

}  // namespace vc::qcow2
