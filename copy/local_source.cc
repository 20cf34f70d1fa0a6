#include "copy/local_source.h"

namespace copy {

namespace {

// Extents that one look at the map gives at most: what is planned ahead must not grow with the
// image.
constexpr size_t kExtentsAtOnce = 4096;
constexpr uint64_t kCacheSize = 8 << 20;  // bytes

}  // namespace

qcow2::Result<std::unique_ptr<LocalSource>> LocalSource::open(const std::string& path,
                                                              std::optional<qcow2::Format> format,
                                                              const std::string& snapshot,
                                                              bool force_share) {
  qcow2::OpenOptions options;
  options.format = format;
  options.force_share = force_share;
  options.force_share_option = "--force-share";
  // The map is gone through once, from the beginning to the end.
  options.cache_size = kCacheSize;
  ASSIGN_OR_RETURN(qcow2::Chain chain, qcow2::Chain::open(path, options));
  qcow2::Disk disk = chain.disk();
  if (!snapshot.empty()) {
    ASSIGN_OR_RETURN(disk, chain.snapshot(snapshot));
  }
  return std::unique_ptr<LocalSource>(new LocalSource(path, std::move(chain), std::move(disk)));
}

std::optional<uint64_t> LocalSource::cluster_size() const {
  if (!chain_.image()) return std::nullopt;
  return chain_.image()->geometry().cluster_size();
}

qcow2::Result<void> LocalSource::map(qcow2::GuestOffset at, uint64_t length,
                                     std::vector<qcow2::Extent>& out) {
  return disk_.map(at, length, out, kExtentsAtOnce);
}

}  // namespace copy
