#include "qcow2/refcounts/refcount_writer.h"

#include <array>

#include "base/byte_order.h"
#include "qcow2/format/header_fields.h"

namespace vc::qcow2 {

namespace {

Result<void> write(Storage& storage, const Refcounts::Changes& changes) {
  for (const auto& it : changes.blocks) RETURN_IF_ERROR(storage.write(it.at, it.bytes));
  RETURN_IF_ERROR(storage.flush());
  if (!changes.table.empty()) {
    for (const auto& it : changes.table) RETURN_IF_ERROR(storage.write(it.at, it.bytes));
    RETURN_IF_ERROR(storage.flush());
  }
  if (!changes.table_moved) return {};
  RETURN_IF_ERROR(
      write_refcount_table_fields(storage, changes.table_offset, changes.table_clusters));
  return storage.flush();
}

}  // namespace

Result<void> write_refcounts(Storage& storage, Refcounts& refcounts) {
  while (true) {
    const Refcounts::Changes changes = refcounts.take_changes();
    if (changes.empty()) return {};
    if (auto written = write(storage, changes); !written) {
      refcounts.commit_failed(changes);
      return written;
    }
    refcounts.committed();
    std::vector<ClusterRun> freed;
    for (const auto& table : changes.old_tables)
      RETURN_IF_ERROR(refcounts.release(table.first, table.count, freed));
  }
}

}  // namespace vc::qcow2
