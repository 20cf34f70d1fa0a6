#include "qcow2/format/snapshot_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "qcow2/format/snapshot_fields.h"

namespace vc::qcow2 {

namespace field = snapshot_field;

namespace {

Failure corrupt(size_t number, uint64_t at, std::string message) {
  return fail(
      Error::corrupt(fmt::format("snapshot {} of the table, at {:#x}: {}", number, at, message)));
}

Result<void> check_usable(const Snapshot& snapshot, const Geometry& geometry, size_t number,
                          uint64_t at) {
  const uint64_t l1_bytes = uint64_t{snapshot.l1_entries} * 8;
  if (l1_bytes > Limits::kL1Bytes)
    return corrupt(number, at,
                   fmt::format("its L1 table has {} entries: {} at most", snapshot.l1_entries,
                               Limits::kL1Bytes / 8));
  if (geometry.offset_in_cluster(snapshot.l1_table.value()) != 0 ||
      snapshot.l1_table.value() > static_cast<uint64_t>(INT64_MAX) - l1_bytes)
    return corrupt(number, at,
                   fmt::format("its L1 table at {:#x} does not begin at a cluster of the file",
                               snapshot.l1_table.value()));
  if (snapshot.disk_size > static_cast<uint64_t>(INT64_MAX))
    return corrupt(number, at, fmt::format("its disk has {} bytes", snapshot.disk_size));
  return {};
}

// Reads the table piece by piece: only its entries determine its length.
class Reader {
 public:
  Reader(const Storage& storage, HostOffset at) : storage_(storage), begin_(at), at_(at) {}

  uint64_t at() const { return at_.value(); }

  Result<void> take(std::span<std::byte> to) {
    if (at_ - begin_ + to.size() > Limits::kSnapshotTableBytes)
      return fail(Error::corrupt(
          fmt::format("the snapshot table is longer than {} bytes", Limits::kSnapshotTableBytes)));
    RETURN_IF_ERROR(with_context(read_fully(storage_, at_, to), "snapshot table"));
    at_ += to.size();
    return {};
  }

  void align() { at_ = HostOffset((at_.value() + 7) & ~uint64_t{7}); }

 private:
  const Storage& storage_;
  HostOffset begin_;
  HostOffset at_;
};

}  // namespace

Result<std::vector<Snapshot>> read_snapshot_table(const Storage& storage, const Header& header,
                                                  SnapshotUse use) {
  std::vector<Snapshot> snapshots;
  Reader reader(storage, header.snapshot_table);

  for (uint32_t number = 0; number < header.snapshot_count; ++number) {
    reader.align();
    const uint64_t at = reader.at();
    std::array<std::byte, field::kFixedBytes> fixed{};
    RETURN_IF_ERROR(reader.take(fixed));

    Snapshot snapshot;
    snapshot.l1_table = HostOffset(load_be64(&fixed[field::kL1Table]));
    snapshot.l1_entries = load_be32(&fixed[field::kL1Entries]);
    const uint16_t id_bytes = load_be16(&fixed[field::kIdLength]);
    const uint16_t name_bytes = load_be16(&fixed[field::kNameLength]);
    snapshot.date_seconds = load_be32(&fixed[field::kDateSeconds]);
    snapshot.date_nanoseconds = load_be32(&fixed[field::kDateNanoseconds]);
    snapshot.vm_clock_nanoseconds = load_be64(&fixed[field::kVmClock]);
    snapshot.vm_state_size = load_be32(&fixed[field::kVmStateSize]);
    const uint32_t extra_bytes = load_be32(&fixed[field::kExtraLength]);

    if (extra_bytes > Limits::kSnapshotExtraBytes)
      return corrupt(number, at,
                     fmt::format("{} bytes of extra data: {} at most", extra_bytes,
                                 Limits::kSnapshotExtraBytes));
    snapshot.extra_bytes = extra_bytes;
    std::vector<std::byte> extra(extra_bytes);
    RETURN_IF_ERROR(reader.take(extra));
    if (extra_bytes >= field::kWithVmStateSize)
      snapshot.vm_state_size = load_be64(&extra[field::kExtraVmStateSize]);
    // Version 3 requires it; QEMU uses the image's size if an older writer omitted it.
    snapshot.disk_size = extra_bytes >= field::kWithDiskSize
                             ? load_be64(&extra[field::kExtraDiskSize])
                             : header.size;
    if (extra_bytes >= field::kWithInstructionCount) {
      snapshot.instruction_count = load_be64(&extra[field::kExtraInstructionCount]);
      snapshot.unknown_extra.assign(extra.begin() + field::kWithInstructionCount, extra.end());
    }

    snapshot.id.resize(id_bytes);
    RETURN_IF_ERROR(reader.take(std::as_writable_bytes(std::span(snapshot.id))));
    snapshot.name.resize(name_bytes);
    RETURN_IF_ERROR(reader.take(std::as_writable_bytes(std::span(snapshot.name))));

    if (use == SnapshotUse::kRead)
      RETURN_IF_ERROR(check_usable(snapshot, header.geometry(), number, at));
    snapshots.push_back(std::move(snapshot));
  }
  return snapshots;
}

std::vector<std::byte> encode_snapshot_table(const std::vector<Snapshot>& snapshots,
                                             uint32_t version) {
  std::vector<std::byte> bytes;
  for (const Snapshot& it : snapshots) {
    // The size that the entry had, and the size that the version requires.
    uint32_t extra_bytes = std::max(it.extra_bytes, version >= 3 ? field::kWithDiskSize : 0);
    if (it.instruction_count != UINT64_MAX)
      extra_bytes = std::max(extra_bytes, field::kWithInstructionCount);
    size_t at = (bytes.size() + 7) / 8 * 8;
    bytes.resize(at + field::kFixedBytes + extra_bytes + it.id.size() + it.name.size());
    std::byte* to = &bytes[at];
    store_be64(to + field::kL1Table, it.l1_table.value());
    store_be32(to + field::kL1Entries, it.l1_entries);
    store_be16(to + field::kIdLength, static_cast<uint16_t>(it.id.size()));
    store_be16(to + field::kNameLength, static_cast<uint16_t>(it.name.size()));
    store_be32(to + field::kDateSeconds, it.date_seconds);
    store_be32(to + field::kDateNanoseconds, it.date_nanoseconds);
    store_be64(to + field::kVmClock, it.vm_clock_nanoseconds);
    // 32 bits: a larger size is in the extra data.
    store_be32(to + field::kVmStateSize,
               extra_bytes >= field::kWithVmStateSize && it.vm_state_size > UINT32_MAX
                   ? 0
                   : static_cast<uint32_t>(it.vm_state_size));
    store_be32(to + field::kExtraLength, extra_bytes);
    to += field::kFixedBytes;
    if (extra_bytes >= field::kWithVmStateSize)
      store_be64(to + field::kExtraVmStateSize, it.vm_state_size);
    if (extra_bytes >= field::kWithDiskSize) store_be64(to + field::kExtraDiskSize, it.disk_size);
    if (extra_bytes >= field::kWithInstructionCount) {
      store_be64(to + field::kExtraInstructionCount, it.instruction_count);
      std::copy_n(
          it.unknown_extra.begin(),
          std::min<size_t>(it.unknown_extra.size(), extra_bytes - field::kWithInstructionCount),
          to + field::kWithInstructionCount);
    }
    to = std::copy_n(reinterpret_cast<const std::byte*>(it.id.data()), it.id.size(),
                     to + extra_bytes);
    std::copy_n(reinterpret_cast<const std::byte*>(it.name.data()), it.name.size(), to);
  }
  return bytes;
}

uint64_t snapshot_table_bytes(const std::vector<Snapshot>& snapshots) {
  uint64_t bytes = 0;
  for (const Snapshot& it : snapshots)
    bytes =
        round_up(bytes, 8) + field::kFixedBytes + it.extra_bytes + it.id.size() + it.name.size();
  return bytes;
}

const Snapshot* find_snapshot_by_name(const std::vector<Snapshot>& snapshots,
                                      std::string_view name) {
  const auto found = std::find_if(snapshots.begin(), snapshots.end(),
                                  [&](const Snapshot& it) { return it.name == name; });
  return found == snapshots.end() ? nullptr : &*found;
}

const Snapshot* find_snapshot(const std::vector<Snapshot>& snapshots, std::string_view id_or_name) {
  for (const auto member : {&Snapshot::id, &Snapshot::name}) {
    const auto found = std::find_if(snapshots.begin(), snapshots.end(),
                                    [&](const Snapshot& it) { return it.*member == id_or_name; });
    if (found != snapshots.end()) return &*found;
  }
  return nullptr;
}

}  // namespace vc::qcow2
