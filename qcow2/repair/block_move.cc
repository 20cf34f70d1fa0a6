#include "qcow2/repair/block_move.h"

#include <array>
#include <vector>

#include "base/byte_order.h"
#include "qcow2/check/recorded_counts.h"
#include "qcow2/format/refcount_block.h"

namespace vc::qcow2 {

Result<bool> move_refcount_block(Storage& storage, const Header& header, uint64_t index) {
  const Geometry geometry = header.geometry();
  ASSIGN_OR_RETURN(const uint64_t size, storage.size());
  ASSIGN_OR_RETURN(const auto counts, RecordedCounts::load(storage, header, size, 1));
  const HostCluster place(geometry.clusters_for(size));
  // The index of the block that counts the new place.
  const uint64_t counting = place.value() / counts.per_block();
  const auto other = counts.block_of(counting);
  if (!counts.block_of(index) || !other || other->value() == 0) return false;

  std::vector<std::byte> block(geometry.cluster_size()), counter(geometry.cluster_size());
  ASSIGN_OR_RETURN(const bool there, counts.read_block(index, block));
  ASSIGN_OR_RETURN(const bool counter_there, counts.read_block(counting, counter));
  if (!there || !counter_there) return false;
  const uint64_t at = place.value() % counts.per_block();
  if (get_refcount(counter, at, counts.order()) != 0) return false;
  if (counting == index) {
    set_refcount(block, at, counts.order(), 1);
  } else {
    set_refcount(counter, at, counts.order(), 1);
    RETURN_IF_ERROR(storage.write(*other, counter));
  }
  RETURN_IF_ERROR(storage.write(geometry.start_of(place), block));
  RETURN_IF_ERROR(storage.flush());
  std::array<std::byte, 8> entry{};
  store_be64(entry.data(), geometry.start_of(place).value());
  RETURN_IF_ERROR(storage.write(header.refcount_table + index * 8, entry));
  RETURN_IF_ERROR(storage.flush());
  return true;
}

}  // namespace vc::qcow2
