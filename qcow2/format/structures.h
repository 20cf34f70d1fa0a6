// The structures of an image that its header and its snapshots lead to.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "qcow2/format/encryption.h"
#include "qcow2/format/header.h"
#include "qcow2/format/snapshot_table.h"
#include "storage/offset.h"

namespace vc::qcow2 {

enum class Structure : uint8_t {
  kHeader,
  kL1Table,
  kL2Table,
  kRefcountTable,
  kRefcountBlock,
  kSnapshotTable,
  kSnapshotL1Table,
  kEncryptionHeader,
  kBitmapDirectory,
  kBitmapTable,
};

// Returns the name for messages: "L2 table".
const char* to_string(Structure structure);
// Returns the name with its article: "an L2 table".
const char* with_article(Structure structure);

// Calls `visit (structure, offset, bytes)` for the header (its whole cluster), the refcount table,
// the L1 table, the snapshot table, the L1 tables of snapshots, and the LUKS header.  Omits those
// without content.  Returns the first error of `visit`, or an error if the place of the LUKS header
// is invalid.
template <typename Visit>
Result<void> for_each_structure(const Header& header, const std::vector<Snapshot>& snapshots,
                                const Visit& visit) {
  const auto present = [&](Structure structure, HostOffset at, uint64_t bytes) -> Result<void> {
    return bytes > 0 ? visit(structure, at, bytes) : Result<void>{};
  };
  RETURN_IF_ERROR(visit(Structure::kHeader, HostOffset(0), uint64_t{1} << header.cluster_bits));
  RETURN_IF_ERROR(present(Structure::kRefcountTable, header.refcount_table,
                          uint64_t{header.refcount_table_clusters} << header.cluster_bits));
  RETURN_IF_ERROR(present(Structure::kL1Table, header.l1_table, uint64_t{header.l1_entries} * 8));
  RETURN_IF_ERROR(
      present(Structure::kSnapshotTable, header.snapshot_table, snapshot_table_bytes(snapshots)));
  for (const Snapshot& it : snapshots)
    RETURN_IF_ERROR(present(Structure::kSnapshotL1Table, it.l1_table, uint64_t{it.l1_entries} * 8));
  if (header.crypt_method == CryptMethod::kLuks) {
    ASSIGN_OR_RETURN(const EncryptionPointer luks, encryption_pointer(header));
    RETURN_IF_ERROR(present(Structure::kEncryptionHeader, luks.at, luks.length));
  }
  return {};
}

}  // namespace vc::qcow2
