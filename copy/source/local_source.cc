#include "copy/source/local_source.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "base/retry.h"
#include "copy/source/cluster_reader.h"

namespace vc::copy {

namespace {

// Maximum extents per map() call: planning must not take memory in proportion to the image.
constexpr size_t kExtentsAtOnce = 4096;
constexpr uint64_t kCacheSize = 8 << 20;  // bytes

// Returns the file that holds the plain and compressed clusters of a layer.
const FileStorage* file_of_layer(const qcow2::Chain& chain, const qcow2::Layer& layer) {
  const Storage* const storage = layer.cluster_storage();
  for (const auto& file : chain.files())
    if (storage ? file.get() == storage : file->name() == layer.name()) return file.get();
  return nullptr;
}

}  // namespace

Result<std::unique_ptr<LocalSource>> LocalSource::open(const std::string& path,
                                                       const Options& options) {
  qcow2::OpenOptions how;
  how.format = options.format;
  how.force_share = options.force_share;
  how.force_share_option = "--force-share";
  how.trust = options.trust;
  // The map is read once, sequentially.
  how.cache_size = kCacheSize;
  how.metadata_only = options.metadata_only;
  if (options.salvage) how.losses = std::make_shared<qcow2::Losses>();
  ASSIGN_OR_RETURN(qcow2::Chain chain, qcow2::Chain::open(path, how));
  if (chain.image())
    chain.image()->cache()->raise_limit(chain.disk().layers().size() *
                                        qcow2::TableCache::kLookUpSize);
  qcow2::Disk disk = chain.disk();
  if (!options.snapshot.empty()) {
    ASSIGN_OR_RETURN(disk, chain.snapshot(options.snapshot));
  }
  std::unique_ptr<LocalSource> source(new LocalSource(path, std::move(chain), std::move(disk)));
  source->losses_ = how.losses;
  return source;
}

Result<std::unique_ptr<LocalSource>> LocalSource::of_snapshot(const qcow2::Chain& chain,
                                                              const qcow2::Snapshot& snapshot) {
  ASSIGN_OR_RETURN(qcow2::Disk disk, chain.snapshot(snapshot));
  return std::unique_ptr<LocalSource>(
      new LocalSource(chain.image()->name(), chain, std::move(disk)));
}

// What an encrypted file holds is not what it reads as.
void LocalSource::find_files() {
  for (size_t i = 0; i < disk_.layers().size(); ++i)
    plain_files_.push_back(chain_.encryptions()[i] ? nullptr
                                                   : file_of_layer(chain_, *disk_.layers()[i]));
}

Result<void> LocalSource::load(Chunk& chunk, ClusterReader& reader) {
  return reader.read(disk_, plain_files_, losses_ != nullptr, chunk);
}

Result<std::string> LocalSource::keep_backing(const std::string& base, uint64_t unit) {
  struct stat wanted {};
  if (retry(::stat, base.c_str(), &wanted) != 0) return fail(Error::system(errno, base));
  const auto& layers = disk_.layers();
  for (size_t i = 1; i < layers.size(); ++i) {
    struct stat status {};
    if (retry(::stat, layers[i]->name().c_str(), &status) != 0) continue;
    if (status.st_dev != wanted.st_dev || status.st_ino != wanted.st_ino) continue;
    qcow2::Disk above({layers.begin(), layers.begin() + static_cast<ptrdiff_t>(i)});
    overlay_.emplace(disk_, std::move(above), unit);
    kept_ = S_ISBLK(wanted.st_mode) ? FileStorage::Identity{wanted.st_rdev, 0}
                                    : FileStorage::Identity{wanted.st_dev, wanted.st_ino};
    return std::string(layers[i]->format());
  }
  return fail(Error::invalid(
      fmt::format("{}: is not a backing file of {}: -B needs a backing file of SRC", base, name_)));
}

std::optional<Source::EncryptedData> LocalSource::encrypted_data() const {
  const auto& layers = chain_.layers();
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::string& name = layers[i]->name();
    const auto is_kept = [&](const auto& file) {
      return kept_ && file->identity() == *kept_ && file->name() == name;
    };
    if (std::any_of(chain_.files().begin(), chain_.files().end(), is_kept)) break;
    if (chain_.encryptions()[i]) return EncryptedData{name, chain_.encryptions().front()};
  }
  return std::nullopt;
}

Result<std::optional<FileSize>> LocalSource::replaced_size() const {
  FileSize size;
  for (const auto& file : chain_.files()) {
    // In order from the top, so the files below the kept one follow it.
    if (kept_ && file->identity() == *kept_) break;
    ASSIGN_OR_RETURN(const uint64_t length, file->size());
    ASSIGN_OR_RETURN(const uint64_t blocks, file->blocks());
    size.length += length;
    size.blocks += file->is_block_device() ? length : blocks;
  }
  return std::optional(size);
}

Result<void> LocalSource::map_stored(GuestOffset at, uint64_t length,
                                     std::vector<qcow2::Extent>& out) {
  return disk_.map(at, length, out, kExtentsAtOnce);
}

std::optional<uint64_t> LocalSource::cluster_size() const {
  if (!chain_.image()) return std::nullopt;
  return chain_.image()->geometry().cluster_size();
}

Result<void> LocalSource::map(GuestOffset at, uint64_t length, std::vector<qcow2::Extent>& out) {
  const size_t first = out.size();
  if (overlay_) {
    RETURN_IF_ERROR(overlay_->map(at, length, out));
  } else {
    RETURN_IF_ERROR(disk_.map(at, length, out, kExtentsAtOnce));
  }
  RETURN_IF_ERROR(holes_.split(disk_, out, first, first + 2 * kExtentsAtOnce));
  unused_.split(out, first, first + 4 * kExtentsAtOnce);
  return {};
}

}  // namespace vc::copy
