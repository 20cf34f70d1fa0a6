#include "qcow2/refcounts/in_place_rebuild.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "base/byte_order.h"
#include "qcow2/format/header_fields.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/refcounts/refcounts.h"
#include "qcow2/refcounts/references.h"

namespace vc::qcow2 {

namespace {

// Clusters per window: 64 MiB of counters.  A longer file is walked several times.
constexpr uint64_t kCounterWindow = 16 << 20;
// The most windows per image: 32 TiB of file with 64 KiB clusters.
constexpr uint64_t kMostWindows = 32;

constexpr const char* kAdvice = ": repair it with qemu-img check -r all";

class InPlaceRebuild {
 public:
  InPlaceRebuild(Storage& storage, const Image& image, Refcounts& refcounts,
                 const References::TableDone& table_done)
      : storage_(storage),
        image_(image),
        geometry_(image.geometry()),
        refcounts_(refcounts),
        table_done_(table_done) {}

  Result<void> run() {
    ASSIGN_OR_RETURN(const References references, References::find(image_));
    const auto assign = [this](uint64_t begin, uint64_t end) -> Result<void> {
      for (uint64_t cluster = begin; cluster < end; ++cluster)
        RETURN_IF_ERROR(refcounts_.assign(HostCluster(cluster), counts_[cluster - begin]));
      return write_counts();
    };
    RETURN_IF_ERROR(count(references, assign));
    RETURN_IF_ERROR(correct_copied(references));
    return clear_dirty();
  }

  Result<void> check() {
    ASSIGN_OR_RETURN(const References references, References::find(image_));
    const auto compare = [this](uint64_t begin, uint64_t end) -> Result<void> {
      for (uint64_t cluster = begin; cluster < end; ++cluster) {
        if (counts_[cluster - begin] == 0) continue;
        ASSIGN_OR_RETURN(const uint64_t counted, refcounts_.get(HostCluster(cluster)));
        if (counted < counts_[cluster - begin])
          return fail(
              Error::corrupt(fmt::format("the cluster at {:#x} has {} references, and a refcount "
                                         "of {}: repair the image first "
                                         "(virt-compact check -r all)",
                                         geometry_.start_of(HostCluster(cluster)).value(),
                                         counts_[cluster - begin], counted)));
      }
      return {};
    };
    return count(references, compare);
  }

 private:
  // Calls `done (begin, end)` for each window, with the references to its clusters in counts_.
  template <typename Done>
  Result<void> count(const References& references, const Done& done) {
    ASSIGN_OR_RETURN(const uint64_t size, storage_.size());
    const uint64_t end = std::max(geometry_.clusters_for(size), refcounts_.end_of_blocks());
    if (end > kMostWindows * kCounterWindow)
      return fail(Error::unsupported(
          fmt::format("the file has {} clusters, too many to be counted here", end)));
    for (uint64_t begin = 0; begin < end; begin += kCounterWindow) {
      RETURN_IF_ERROR(count_window(references, begin, std::min(end, begin + kCounterWindow)));
      RETURN_IF_ERROR(done(begin, std::min(end, begin + kCounterWindow)));
    }
    return {};
  }

  Result<void> count_window(const References& references, uint64_t begin, uint64_t end) {
    counts_.assign(end - begin, 0);
    RETURN_IF_ERROR(references.visit(
        [&](HostCluster first, uint64_t count, uint64_t times) {
          const uint64_t stop = std::min(first.value() + count, end);
          for (uint64_t cluster = std::max(first.value(), begin); cluster < stop; ++cluster) {
            uint32_t& counter = counts_[cluster - begin];
            const uint64_t sum = counter + times;
            counter = static_cast<uint32_t>(
                std::min<uint64_t>(sum, std::numeric_limits<uint32_t>::max()));
          }
        },
        table_done_));
    return {};
  }

  Result<void> write_counts() {
    const Refcounts::Changes changes = refcounts_.take_changes();
    for (const auto& write : changes.blocks) RETURN_IF_ERROR(storage_.write(write.at, write.bytes));
    refcounts_.committed();
    return storage_.flush();
  }

  // Returns `entry` with the correct COPIED flag.
  Result<uint64_t> with_copied(uint64_t entry) {
    const HostOffset at(entry & kEntryOffsetMask);
    if (at.value() == 0 || (entry & kEntryCompressed) != 0) return entry & ~kEntryCopied;
    ASSIGN_OR_RETURN(const uint64_t count, refcounts_.get(geometry_.host_cluster_of(at)));
    return count == 1 ? entry | kEntryCopied : entry & ~kEntryCopied;
  }

  Result<void> correct_copied(const References& references) {
    for (const References::Table& table : references.active_tables()) {
      ASSIGN_OR_RETURN(const uint64_t right, with_copied(table.l1_entry));
      if (right != table.l1_entry) {
        std::array<std::byte, 8> bytes{};
        store_be64(bytes.data(), right);
        RETURN_IF_ERROR(storage_.write(image_.header().l1_table + table.l1_index * 8, bytes));
      }
      // Clusters in a data file are never shared.
      if (!image_.header().has_data_file())
        RETURN_IF_ERROR(mend_table(HostOffset(table.l1_entry & kEntryOffsetMask)));
      if (table_done_) table_done_(references.active_tables().size());
    }
    return storage_.flush();
  }

  Result<void> mend_table(HostOffset table) {
    std::vector<std::byte> bytes(geometry_.cluster_size());
    RETURN_IF_ERROR(read_fully(storage_, table, bytes));
    const uint64_t entry_size = geometry_.l2_entry_size();
    for (uint64_t at = 0; at < bytes.size(); at += entry_size) {
      const uint64_t entry = load_be64(&bytes[at]);
      ASSIGN_OR_RETURN(const uint64_t right, with_copied(entry));
      if (right == entry) continue;
      store_be64(&bytes[at], right);
      RETURN_IF_ERROR(storage_.write(table + at, std::span(bytes).subspan(at, 8)));
    }
    return {};
  }

  Result<void> clear_dirty() {
    if (image_.header().version < 3) return {};
    std::array<std::byte, 8> bytes{};
    store_be64(bytes.data(), image_.header().incompatible_features & ~incompatible::kDirty);
    RETURN_IF_ERROR(storage_.write(HostOffset(header_field::kIncompatible), bytes));
    return storage_.flush();
  }

  Storage& storage_;
  const Image& image_;
  const Geometry& geometry_;
  Refcounts& refcounts_;
  const References::TableDone& table_done_;
  std::vector<uint32_t> counts_;
};

}  // namespace

Result<void> rebuild_in_place(const std::shared_ptr<Storage>& storage, const Image& image,
                              const References::TableDone& table_done) {
  auto done = [&]() -> Result<void> {
    ASSIGN_OR_RETURN(const auto refcounts, Refcounts::load(storage, image.header()));
    return InPlaceRebuild(*storage, image, *refcounts, table_done).run();
  }();
  if (done || done.error().kind() == Error::Kind::kSystem) return done;
  return fail(Error::corrupt(fmt::format("{}: its refcounts cannot be rebuilt: {}{}", image.name(),
                                         done.error().message(), kAdvice)));
}

Result<void> check_counts(const std::shared_ptr<Storage>& storage, const Image& image,
                          const References::TableDone& table_done) {
  const auto refcounts = Refcounts::load(storage, image.header());
  if (!refcounts) return fail(Error(refcounts.error()).with_context(image.name()));
  return with_context(InPlaceRebuild(*storage, image, **refcounts, table_done).check(),
                      image.name());
}

}  // namespace vc::qcow2
