#include "copy/states/carried_snapshots.h"

#include <fmt/format.h>

namespace vc::copy {

namespace {

constexpr uint64_t kChainCacheSize = 8 << 20;  // bytes

Result<qcow2::Chain> open_chain(const SnapshotChoice& choice, Source& source) {
  const auto* const local = dynamic_cast<const LocalSource*>(&source);
  if (!local)
    return fail(Error::invalid(source.name() +
                               ": snapshots can only be copied from an image file, not from a "
                               "server or a pipe"));
  if (choice.image.empty()) return local->chain();
  qcow2::OpenOptions how;
  how.format = choice.format;
  how.trust = choice.trust;
  how.cache_size = kChainCacheSize;
  return qcow2::Chain::open(choice.image, how);
}

}  // namespace

Result<CarriedSnapshots> CarriedSnapshots::open(const SnapshotChoice& choice, Source& source) {
  ASSIGN_OR_RETURN(qcow2::Chain chain, open_chain(choice, source));
  std::vector<qcow2::Snapshot> kept;
  const auto& image = chain.image();
  if (!image && !choice.dropped.empty())
    return fail(Error::invalid(
        fmt::format("{}: a raw file has no snapshot '{}'", source.name(), choice.dropped.front())));
  if (image) {
    ASSIGN_OR_RETURN(kept, kept_snapshots(image->snapshots(), choice.dropped, image->name()));
    if (!kept.empty() && image->header().has_data_file())
      return fail(Error::unsupported(
          image->name() + ": has snapshots and an external data file, which cannot hold them"));
  }
  return CarriedSnapshots(std::move(chain), std::move(kept));
}

CarriedSnapshots CarriedSnapshots::all_of(const qcow2::Chain& chain) {
  return {chain, chain.image() ? chain.image()->snapshots() : std::vector<qcow2::Snapshot>()};
}

uint64_t CarriedSnapshots::total() const {
  uint64_t total = 0;
  for (const qcow2::Snapshot& it : snapshots_)
    for (const uint64_t bytes : {it.disk_size, it.vm_state_size})
      total = bytes > UINT64_MAX - total ? UINT64_MAX : total + bytes;
  return total;
}

Result<StateMap::Active> CarriedSnapshots::active(Source& source) const {
  StateMap::Active active;
  active.size = source.size();
  const auto* const local = dynamic_cast<const LocalSource*>(&source);
  const auto layers = local ? local->disk().layers() : std::vector<std::shared_ptr<qcow2::Layer>>();
  const auto is_image = [&](const qcow2::Layer& layer) {
    const qcow2::Image* const image = layer.qcow2_image();
    if (!image) return false;
    const auto* const file = dynamic_cast<const FileStorage*>(&image->storage());
    return file && file->identity() == chain_.files().front()->identity();
  };
  for (size_t i = 0; i < layers.size(); ++i) {
    if (!is_image(*layers[i])) continue;
    if (i > 0)
      active.above = std::make_shared<qcow2::Disk>(std::vector<std::shared_ptr<qcow2::Layer>>(
          layers.begin(), layers.begin() + static_cast<ptrdiff_t>(i)));
    return active;
  }
  return fail(Error::invalid(fmt::format("{}: does not read from {}, which has the snapshots",
                                         source.name(), chain_.files().front()->name())));
}

Result<std::unique_ptr<StateMap>> CarriedSnapshots::map(const qcow2::Geometry& geometry,
                                                        StateMap::Active active) const {
  return StateMap::open(chain_.image(), snapshots_, geometry, std::move(active));
}

Result<std::unique_ptr<LocalSource>> CarriedSnapshots::disk(size_t number) const {
  return LocalSource::of_snapshot(chain_, snapshots_[number]);
}

Result<std::unique_ptr<VmStateSource>> CarriedSnapshots::vm_state(size_t number) const {
  return VmStateSource::open(chain_.image(), snapshots_[number]);
}

}  // namespace vc::copy
