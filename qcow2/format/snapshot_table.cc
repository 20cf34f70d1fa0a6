#include "qcow2/format/snapshot_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/byte_order.h"

namespace vc::qcow2 {

namespace {

// The sizes of an entry before its extra data, and of the fields in the extra data.
constexpr size_t kFixedBytes = 40;
constexpr uint32_t kExtraVmStateSize = 8;
constexpr uint32_t kExtraDiskSize = 16;
constexpr uint32_t kExtraInstructionCount = 24;

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
    std::array<std::byte, kFixedBytes> fixed{};
    RETURN_IF_ERROR(reader.take(fixed));

    Snapshot snapshot;
    snapshot.l1_table = HostOffset(load_be64(&fixed[0]));
    snapshot.l1_entries = load_be32(&fixed[8]);
    const uint16_t id_bytes = load_be16(&fixed[12]);
    const uint16_t name_bytes = load_be16(&fixed[14]);
    snapshot.date_seconds = load_be32(&fixed[16]);
    snapshot.date_nanoseconds = load_be32(&fixed[20]);
    snapshot.vm_clock_nanoseconds = load_be64(&fixed[24]);
    snapshot.vm_state_size = load_be32(&fixed[32]);
    const uint32_t extra_bytes = load_be32(&fixed[36]);

    if (extra_bytes > Limits::kSnapshotExtraBytes)
      return corrupt(number, at,
                     fmt::format("{} bytes of extra data: {} at most", extra_bytes,
                                 Limits::kSnapshotExtraBytes));
    snapshot.extra_bytes = extra_bytes;
    std::vector<std::byte> extra(extra_bytes);
    RETURN_IF_ERROR(reader.take(extra));
    if (extra_bytes >= kExtraVmStateSize) snapshot.vm_state_size = load_be64(&extra[0]);
    // Version 3 requires it; QEMU uses the image's size if an older writer omitted it.
    snapshot.disk_size = extra_bytes >= kExtraDiskSize ? load_be64(&extra[8]) : header.size;
    if (extra_bytes >= kExtraInstructionCount) {
      snapshot.instruction_count = load_be64(&extra[16]);
      snapshot.unknown_extra.assign(extra.begin() + kExtraInstructionCount, extra.end());
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
    uint32_t extra_bytes = std::max(it.extra_bytes, version >= 3 ? kExtraDiskSize : 0);
    if (it.instruction_count != UINT64_MAX)
      extra_bytes = std::max(extra_bytes, kExtraInstructionCount);
    size_t at = (bytes.size() + 7) / 8 * 8;
    bytes.resize(at + kFixedBytes + extra_bytes + it.id.size() + it.name.size());
    std::byte* to = &bytes[at];
    store_be64(to, it.l1_table.value());
    store_be32(to + 8, it.l1_entries);
    store_be16(to + 12, static_cast<uint16_t>(it.id.size()));
    store_be16(to + 14, static_cast<uint16_t>(it.name.size()));
    store_be32(to + 16, it.date_seconds);
    store_be32(to + 20, it.date_nanoseconds);
    store_be64(to + 24, it.vm_clock_nanoseconds);
    // 32 bits: a larger size is in the extra data.
    store_be32(to + 32, extra_bytes >= kExtraVmStateSize && it.vm_state_size > UINT32_MAX
                            ? 0
                            : static_cast<uint32_t>(it.vm_state_size));
    store_be32(to + 36, extra_bytes);
    to += kFixedBytes;
    if (extra_bytes >= kExtraVmStateSize) store_be64(to, it.vm_state_size);
    if (extra_bytes >= kExtraDiskSize) store_be64(to + 8, it.disk_size);
    if (extra_bytes >= kExtraInstructionCount) {
      store_be64(to + 16, it.instruction_count);
      std::copy_n(it.unknown_extra.begin(),
                  std::min<size_t>(it.unknown_extra.size(), extra_bytes - kExtraInstructionCount),
                  to + kExtraInstructionCount);
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
    bytes = (bytes + 7) / 8 * 8 + kFixedBytes + it.extra_bytes + it.id.size() + it.name.size();
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
