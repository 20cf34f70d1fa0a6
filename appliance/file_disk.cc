#include "appliance/file_disk.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/retry.h"
#include "base/rounding.h"
#include "qcow2/read/raw_layer.h"
#include "qcow2/repair/deallocation.h"
#include "qcow2/write/chain_writer.h"

namespace vc::appliance {

using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

constexpr size_t kExtentsAtOnce = 4096;
// Smallest unit that filesystems of the host can deallocate, bytes.
constexpr uint64_t kHostBlock = 4096;
// Most changed L2 tables in memory before they are written, bytes.
constexpr uint64_t kMostTables = 16 << 20;
constexpr uint64_t kEntrySize = 8;
// Bytes per discard, so that a cancellation takes effect soon. A multiple of any cluster size.
constexpr uint64_t kPiece = 1 << 30;

}  // namespace

Result<std::unique_ptr<FileDisk>> FileDisk::open(const GuestDisk& disk, bool writing) {
  std::unique_ptr<FileDisk> result(new FileDisk(disk));
  RETURN_IF_ERROR(disk.format == qcow2::Format::kRaw ? result->open_raw(disk)
                                                     : result->open_image(disk, writing));
  return result;
}

Result<void> FileDisk::open_raw(const GuestDisk& disk) {
  raw_ = disk.lock;
  unit_ = cluster_ = kHostBlock;
  ASSIGN_OR_RETURN(auto layer, qcow2::RawLayer::open(raw_));
  disk_.emplace(std::vector{std::move(layer)});
  return {};
}

Result<void> FileDisk::open_image(const GuestDisk& disk, bool writing) {
  qcow2::OpenOptions options;
  options.format = disk.format;
  options.trust.names = disk.given.names;
  options.trust.keys = disk.given.keys;
  options.writable = writing;
  ASSIGN_OR_RETURN(chain_, qcow2::Chain::open(disk.given.name, options));
  const qcow2::Header& header = chain_->image()->header();
  if (header.version < 3 && !header.backing_file.empty())
    return fail(Error::unsupported(
        name_ +
        ": is a version 2 image with a backing file: it cannot be trimmed, because discarded "
        "ranges would read as data of the backing file: flatten it first (virt-compact flatten)"));
  const qcow2::Geometry& geometry = chain_->image()->geometry();
  cluster_ = geometry.cluster_size();
  keeps_places_ = header.has_data_file();
  unit_ = keeps_places_ ? cluster_ : geometry.subcluster_size();
  if (!writing) {
    disk_.emplace(chain_->disk());
    return {};
  }
  ASSIGN_OR_RETURN(writer_, qcow2::open_writer(*chain_, {}));
  return {};
}

Result<guest::Ranges> FileDisk::data() const {
  ASSIGN_OR_RETURN(auto found, plan(guest::one_range(0, disk().size())));
  return std::move(found.data);
}

guest::Ranges FileDisk::in_whole_units(const guest::Ranges& ranges) const {
  guest::Ranges::Builder builder;
  for (const guest::Range& range : ranges.all()) {
    // The last unit of the disk may be shorter.
    const uint64_t end = range.end == disk().size() ? range.end : round_down(range.end, unit_);
    builder.add(round_up(range.begin, unit_), end);
  }
  return builder.take();
}

void FileDisk::add(const Extent& extent, const guest::Range& within, guest::Ranges::Builder& all,
                   guest::Ranges::Builder& data) const {
  if (extent.reads_as_zero() && (!extent.preallocated || keeps_places_)) return;
  const uint64_t begin = extent.guest.value();
  const uint64_t end = extent.end().value();
  // Extends the range to whole clusters: a cluster is deallocated only if all of its subclusters
  // are zeros.
  const uint64_t cluster_begin = round_down(begin, cluster_);
  const uint64_t cluster_end = std::min(round_up(end, cluster_), disk().size());
  if (extent.kind == ExtentKind::kCompressed && extent.depth == 0 &&
      (cluster_begin < within.begin || cluster_end > within.end))
    return;
  all.add(std::max(cluster_begin, within.begin), std::min(cluster_end, within.end));
  if (!extent.reads_as_zero()) data.add(begin, end);
}

Result<FileDisk::Plan> FileDisk::plan(const guest::Ranges& free) const {
  guest::Ranges::Builder all;
  guest::Ranges::Builder data;
  std::vector<Extent> extents;
  for (const guest::Range& range : in_whole_units(free).all()) {
    for (uint64_t at = range.begin; at < range.end;) {
      extents.clear();
      RETURN_IF_ERROR(disk().map(GuestOffset(at), range.end - at, extents, kExtentsAtOnce));
      for (const Extent& extent : extents) add(extent, range, all, data);
      at = extents.back().end().value();
    }
  }
  // All free blocks, since a block of a raw file may be allocated although it was never written.
  if (raw_) return Plan{in_whole_units(free), data.take()};
  return Plan{all.take(), data.take()};
}

Result<void> FileDisk::punch(uint64_t at, uint64_t length) const {
  if (retry(::fallocate, raw_->descriptor(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            static_cast<off_t>(at), static_cast<off_t>(length)) == 0)
    return {};
  if (errno == EOPNOTSUPP)
    return fail(Error::protocol(
        EOPNOTSUPP,
        name_ + ": cannot be trimmed: its filesystem cannot deallocate parts of files"));
  return fail(Error::system(errno, fmt::format("{}: deallocate at {:#x}", name_, at)));
}

Result<void> FileDisk::discard(const guest::Ranges& ranges, const Cancel& cancel) {
  const uint64_t most_uncommitted = kMostTables / kEntrySize * cluster_;
  uint64_t uncommitted = 0;
  for (const guest::Range& range : ranges.all()) {
    for (uint64_t at = range.begin; at < range.end;) {
      if (cancel.requested()) return fail(Error::cancelled());
      // Pieces end at cluster boundaries.
      const uint64_t end = std::min(range.end, (at / kPiece + 1) * kPiece);
      RETURN_IF_ERROR(raw_ ? punch(at, end - at) : writer_->discard(GuestOffset(at), end - at));
      uncommitted += end - at;
      if (uncommitted >= most_uncommitted) {
        if (writer_) RETURN_IF_ERROR(writer_->flush());
        uncommitted = 0;
      }
      at = end;
    }
  }
  return {};
}

Result<void> FileDisk::close() {
  if (raw_) return raw_->flush();
  RETURN_IF_ERROR(writer_->close());
  // Another program may have freed clusters without deallocating their data.
  ASSIGN_OR_RETURN([[maybe_unused]] const uint64_t deallocated,
                   with_context(qcow2::deallocate_if_sound(chain_->storage()),
                                "free clusters cannot be deallocated"));
  return {};
}

}  // namespace vc::appliance
