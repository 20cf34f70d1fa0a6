#include "qcow2/read/qcow2_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/byte_order.h"
#include "base/rounding.h"

namespace vc::qcow2 {

Result<std::shared_ptr<Layer>> Qcow2Layer::open(std::shared_ptr<Image> image, HostOffset l1_table,
                                                uint32_t l1_entries, uint64_t size) {
  ASSIGN_OR_RETURN(auto map, ClusterMap::open(image->shared_storage(), image->cache(),
                                              image->geometry(), l1_table, l1_entries));
  return std::shared_ptr<Layer>(
      std::make_shared<Qcow2Layer>(std::move(image), std::move(map), size));
}

Failure Qcow2Layer::corrupt(std::string message) const {
  return fail(Error::corrupt(fmt::format("{}: {}", name(), message)));
}

std::optional<Layer::StreamFormat> Qcow2Layer::compression() const {
  return StreamFormat{image_->header().compression_type, image_->geometry().cluster_size()};
}

// Source: qcow2 specification, "L2 table entry" and "Extended L2 entries"; QEMU's order of checks.
Result<Qcow2Layer::Mapping> Qcow2Layer::decode(L2Entry entry, ClusterIndex cluster,
                                               unsigned subcluster) const {
  const Geometry& geometry = image_->geometry();
  const bool has_data_file = image_->header().has_data_file();
  Mapping mapping{ExtentKind::kUnallocated, false, HostOffset(0), 0};

  if (entry.compressed()) {
    if (has_data_file)
      return corrupt(
          fmt::format("guest offset {:#x} is compressed, but the image has an external "
                      "data file",
                      geometry.start_of(cluster).value()));
    const auto descriptor = CompressedDescriptor::decode(entry.word, geometry.cluster_bits());
    mapping.kind = ExtentKind::kCompressed;
    mapping.host = descriptor.offset;
    mapping.compressed_length = descriptor.readable_bytes();
    return mapping;
  }

  const HostOffset host = entry.host();
  if (geometry.offset_in_cluster(host.value()) != 0)
    return corrupt(
        fmt::format("guest offset {:#x} maps to {:#x}, which is not the start of a cluster",
                    geometry.start_of(cluster).value(), host.value()));
  // The first cluster of a data file is at 0, which otherwise means "unallocated".
  const bool allocated = host.value() != 0 || (has_data_file && entry.copied());
  mapping.host = host;

  if (!geometry.extended_l2()) {
    if (entry.zero_flag()) {
      if (image_->header().version < 3)
        return corrupt(
            fmt::format("guest offset {:#x} is a zero cluster, which version 2 does not have",
                        geometry.start_of(cluster).value()));
      mapping.kind = ExtentKind::kZero;
      mapping.preallocated = host.value() != 0;
    } else if (allocated) {
      mapping.kind = ExtentKind::kData;
    }
    return mapping;
  }

  if ((entry.allocated_mask() & entry.zero_mask()) != 0 ||
      (!allocated && entry.allocated_mask() != 0))
    return corrupt(fmt::format("guest offset {:#x} has an invalid subcluster bitmap {:#018x}",
                               geometry.start_of(cluster).value(), entry.bitmap));
  const uint32_t bit = uint32_t{1} << subcluster;
  if ((entry.zero_mask() & bit) != 0) {
    mapping.kind = ExtentKind::kZero;
    mapping.preallocated = allocated;
  } else if ((entry.allocated_mask() & bit) != 0) {
    mapping.kind = ExtentKind::kData;
  } else {
    mapping.preallocated = allocated;
  }
  return mapping;
}

// A table that is not completely in the file is an error, not a hole: its clusters would be lost.
Failure Qcow2Layer::table_failure(Error error, uint64_t l1_index, HostOffset table,
                                  GuestOffset at) const {
  const auto file_size = image_->storage().size();
  if (file_size && table.value() + image_->geometry().cluster_size() > *file_size)
    error = Error::corrupt(
        fmt::format("it {} past the end of the file at {:#x}: the image is truncated",
                    table.value() >= *file_size ? "lies" : "ends", *file_size));
  return fail(std::move(error).with_context(
      fmt::format("{}: L2 table at {:#x} (L1 entry {}) for guest offset {:#x}", name(),
                  table.value(), l1_index, at.value())));
}

Result<Extent> Qcow2Layer::map(GuestOffset at, uint64_t limit) const {
  const Geometry& geometry = image_->geometry();
  const ClusterIndex cluster = geometry.cluster_of(at);
  const GuestOffset end = at + limit;
  Extent extent;
  extent.guest = at;

  // Consecutive empty L1 entries are one hole: a huge empty disk is mapped at once.
  const auto lock = map_->lock_shared();
  const uint64_t l1_index = geometry.l1_index(cluster);
  const uint64_t l1_end = geometry.l1_index(geometry.cluster_of(end - 1)) + 1;
  ASSIGN_OR_RETURN(const ClusterMap::L1Entry l1, map_->next_table(l1_index, l1_end));
  if (l1.index != l1_index) {
    const uint64_t hole_end = l1.index < l1_end ? l1.index * geometry.l2_reach() : end.value();
    extent.length = hole_end - at.value();
    return extent;
  }
  const HostOffset table = l1.at;
  if (geometry.offset_in_cluster(table.value()) != 0)
    return corrupt(fmt::format("L1 entry {}: the L2 table at {:#x} does not begin at a cluster",
                               l1_index, table.value()));

  // The slice of the table that contains the entry, and the index in it.
  const uint64_t entry_size = geometry.l2_entry_size();
  const uint64_t slice_entries = map_->slice_entries();
  const uint64_t slice_start = geometry.l2_index(cluster) / slice_entries * slice_entries;
  const auto slice = map_->slice_at(table + slice_start * entry_size);
  if (!slice) return table_failure(slice.error(), l1_index, table, at);
  uint64_t index = geometry.l2_index(cluster) - slice_start;

  // Extends the first (sub)cluster's extent as long as the next ones match it.
  const bool extended = geometry.extended_l2();
  const uint64_t unit = geometry.subcluster_size();
  const unsigned units = extended ? Geometry::kSubclusters : 1;
  GuestOffset position(round_down(at.value(), unit));
  auto subcluster = static_cast<unsigned>(geometry.offset_in_cluster(position.value()) / unit);
  bool first = true;
  for (; index < slice_entries && position < end; ++index) {
    const L2Entry entry = load_l2_entry(**slice, index, extended);
    for (; subcluster < units && position < end; ++subcluster, position += unit) {
      ASSIGN_OR_RETURN(const Mapping mapping,
                       decode(entry, geometry.cluster_of(position), subcluster));
      const bool has_host = mapping.kind == ExtentKind::kData || mapping.preallocated;
      const HostOffset host = mapping.host + uint64_t{subcluster} * unit;
      if (first) {
        first = false;
        extent.kind = mapping.kind;
        extent.preallocated = mapping.preallocated;
        if (mapping.kind == ExtentKind::kCompressed) {
          extent.host = mapping.host;
          extent.compressed_length = mapping.compressed_length;
          // Each cluster has its own descriptor: extents do not join.
          const GuestOffset cluster_end = geometry.start_of(cluster) + geometry.cluster_size();
          extent.length = std::min(end, cluster_end) - at;
          return extent;
        }
        if (has_host) extent.host = host + (at - position);
        continue;
      }
      if (mapping.kind != extent.kind || mapping.preallocated != extent.preallocated ||
          (has_host && host != extent.host + (position - at))) {
        extent.length = position - at;
        return extent;
      }
    }
    subcluster = 0;
  }
  extent.length = std::min(position, end) - at;
  return extent;
}

Result<void> Qcow2Layer::read(const Extent& extent, GuestOffset at, std::span<std::byte> to) const {
  return extent.kind == ExtentKind::kCompressed ? read_compressed(extent, at, to)
                                                : read_data(extent, at, to);
}

Result<void> Qcow2Layer::read_data(const Extent& extent, GuestOffset at,
                                   std::span<std::byte> to) const {
  const auto& encryption = image_->encryption();
  if (encryption && !encryption->is_luks() && !encryption->is_locked())
    return read_encrypted(extent, at, to);
  return read_stored(extent.host + (at - extent.guest), at, to);
}

// Reads whole sectors, which are decrypted by their guest offsets.  Extents have whole sectors, but
// for the part of one that the caller needs.
Result<void> Qcow2Layer::read_encrypted(const Extent& extent, GuestOffset at,
                                        std::span<std::byte> to) const {
  constexpr uint64_t kSector = Geometry::kSectorSize;
  const uint64_t skip = at.value() % kSector;
  const uint64_t sectors = (skip + to.size() + kSector - 1) / kSector;
  std::vector<std::byte> bytes(sectors * kSector);
  const HostOffset host = extent.host + (at - extent.guest) - skip;
  RETURN_IF_ERROR(read_stored(host, at - skip, bytes));
  RETURN_IF_ERROR(image_->encryption()->cipher->decrypt(at.value() / kSector, bytes));
  std::memcpy(to.data(), bytes.data() + skip, to.size());
  return {};
}

// A file may end inside its last cluster, as in QEMU: the missing part reads as zeros.  A cluster
// that starts past the end is lost; zeros would hide that.
Result<void> Qcow2Layer::read_stored(HostOffset host, GuestOffset at,
                                     std::span<std::byte> to) const {
  ASSIGN_OR_RETURN(const size_t got, image_->data_storage().read(host, to));
  if (got == to.size()) return {};

  const Geometry& geometry = image_->geometry();
  const uint64_t cluster_size = geometry.cluster_size();
  ASSIGN_OR_RETURN(const uint64_t file_size, image_->data_storage().size());
  const uint64_t readable_end = round_up(file_size, cluster_size);
  if (host.value() + to.size() > readable_end) {
    // The first cluster that is completely missing.
    const uint64_t lost = std::max(readable_end, host.value());
    return fail(Error::corrupt(fmt::format(
        "{}: guest offset {:#x} maps to {:#x}, past the end of the file at {:#x}: the image is "
        "truncated",
        image_->data_storage().name(), (at + (lost - host.value())).value(), lost, file_size)));
  }
  std::memset(to.data() + got, 0, to.size() - got);
  return {};
}

Result<size_t> Qcow2Layer::read_stream(const Extent& extent, std::span<std::byte> to) const {
  const size_t wanted = std::min<uint64_t>(extent.compressed_length, to.size());
  return image_->storage().read(extent.host, to.first(wanted));
}

Result<void> Qcow2Layer::read_compressed(const Extent& extent, GuestOffset at,
                                         std::span<std::byte> to) const {
  const Geometry& geometry = image_->geometry();
  const auto context = [&] {
    return fmt::format("{}: compressed cluster of guest offset {:#x} at {:#x}", name(), at.value(),
                       extent.host.value());
  };

  const auto type = image_->header().compression_type;
  const uint64_t skip = geometry.offset_in_cluster(at.value());
  if (to.size() > geometry.cluster_size() - skip)
    return fail(Error::invalid(fmt::format("{} bytes from {:#x} on are more than it holds",
                                           to.size(), at.value()))
                    .with_context(context()));
  DecoderPool::Lease lease = image_->decoders().take();
  lease->stream.resize(extent.compressed_length);
  ASSIGN_OR_RETURN(const size_t got, read_stream(extent, lease->stream));
  // The last sector of the file may be incomplete.
  if (got < lease->stream.size()) {
    if (got == 0)
      return fail(Error::corrupt("it is past the end of the file: the image is truncated")
                      .with_context(context()));
    std::memset(lease->stream.data() + got, 0, lease->stream.size() - got);
  }

  if (skip == 0 && to.size() == geometry.cluster_size()) {
    auto decoded = lease->decoder.decode(type, lease->stream, to);
    return decoded ? decoded : with_context(std::move(decoded), context());
  }
  lease->cluster.resize(geometry.cluster_size());
  if (auto decoded = lease->decoder.decode(type, lease->stream, lease->cluster); !decoded)
    return with_context(std::move(decoded), context());
  std::memcpy(to.data(), lease->cluster.data() + skip, to.size());
  return {};
}

Result<std::shared_ptr<Layer>> open_active_layer(const std::shared_ptr<Image>& image) {
  const Header& header = image->header();
  return Qcow2Layer::open(image, header.l1_table, header.l1_entries, header.size);
}

Result<std::shared_ptr<Layer>> open_snapshot_layer(const std::shared_ptr<Image>& image,
                                                   const Snapshot& snapshot) {
  return with_context(
      Qcow2Layer::open(image, snapshot.l1_table, snapshot.l1_entries, snapshot.disk_size),
      fmt::format("snapshot '{}'", snapshot.name));
}

}  // namespace vc::qcow2
