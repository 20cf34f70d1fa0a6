#include "qcow2/format/header_fields.h"

#include <array>

#include "base/byte_order.h"

namespace vc::qcow2 {

Result<void> write_refcount_table_fields(Storage& storage, HostOffset table, uint32_t clusters) {
  std::array<std::byte, header_field::kRefcountTableFields> fields{};
  store_be64(fields.data(), table.value());
  store_be32(fields.data() + 8, clusters);
  return storage.write(HostOffset(header_field::kRefcountTable), fields);
}

Result<void> write_snapshot_fields(Storage& storage, uint32_t count, HostOffset table) {
  std::array<std::byte, header_field::kSnapshotFields> fields{};
  store_be32(fields.data(), count);
  store_be64(fields.data() + 4, table.value());
  return storage.write(HostOffset(header_field::kSnapshotCount), fields);
}

Result<void> write_feature_fields(Storage& storage, uint64_t incompatible, uint64_t compatible,
                                  uint64_t autoclear) {
  std::array<std::byte, header_field::kFeatureFields> fields{};
  store_be64(fields.data(), incompatible);
  store_be64(fields.data() + 8, compatible);
  store_be64(fields.data() + 16, autoclear);
  return storage.write(HostOffset(header_field::kIncompatible), fields);
}

}  // namespace vc::qcow2
