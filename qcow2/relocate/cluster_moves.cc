#include "qcow2/relocate/cluster_moves.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "qcow2/refcounts/refcount_writer.h"
#include "qcow2/write/cluster_copy.h"

namespace vc::qcow2 {

namespace {

// The most bytes of one copy or write.
constexpr uint64_t kMostCopy = 1 << 20;
// Bytes of a table that are changed in one write.
constexpr uint64_t kWordPage = 4096;

}  // namespace

// Extends the last copy if the two continue each other.
void ClusterMoves::add(const Copy& copy) {
  moved_ += copy.length;
  if (!copies_.empty()) {
    Copy& last = copies_.back();
    const bool same_shift = last.sectors == copy.sectors && last.content == copy.content &&
                            copy.from >= last.from && copy.to >= last.to &&
                            copy.from - last.from == copy.to - last.to;
    // Sectors of compressed clusters may be shared.
    if (same_shift && copy.from <= last.from + last.length) {
      const uint64_t end = (copy.from - last.from) + copy.length;
      if (end <= kMostCopy) {
        last.length = std::max(last.length, end);
        return;
      }
    }
  }
  copies_.push_back(copy);
}

Result<void> ClusterMoves::require_all_known(HostCluster cluster, uint64_t times) const {
  ASSIGN_OR_RETURN(const uint64_t count, refcounts_.get(cluster));
  if (count == times && times > 0) return {};
  return fail(Error::unsupported(fmt::format(
      "{}: the cluster at {:#x} cannot move: its refcount is {}, and {} references to it are "
      "known: "
      "make a fresh image with virt-compact copy, or let virt-compact check -r all --lossy free "
      "what has leaked",
      storage_->name(), geometry_.start_of(cluster).value(), count, times)));
}

Result<void> ClusterMoves::move(ClusterRun from, HostCluster to, uint64_t times, Content content) {
  const uint64_t at_once = std::max<uint64_t>(kMostCopy >> geometry_.cluster_bits(), 1);
  for (uint64_t done = 0; done < from.count; done += at_once)
    add({geometry_.start_of(from.first + done), geometry_.start_of(to + done),
         std::min(at_once, from.count - done) << geometry_.cluster_bits(), false, content});
  for (uint64_t i = 0; i < from.count; ++i) {
    RETURN_IF_ERROR(refcounts_.assign(to + i, times));
    drops_.push_back({from.first + i, times});
  }
  return {};
}

void ClusterMoves::copy_sectors(HostOffset from, HostOffset to, uint64_t length) {
  add({from, to, length, true, Content::kTables});
}

// Joins bytes that follow each other.
void ClusterMoves::write(HostOffset to, std::span<const std::byte> bytes) {
  moved_ += bytes.size();
  const bool follows = !fresh_.empty() && fresh_.back().at + fresh_.back().bytes.size() == to &&
                       fresh_.back().bytes.size() + bytes.size() <= kMostCopy;
  if (!follows) fresh_.push_back({to, {}});
  fresh_.back().bytes.insert(fresh_.back().bytes.end(), bytes.begin(), bytes.end());
}

Result<void> ClusterMoves::add_references(HostOffset at, uint64_t length, uint64_t times) {
  const HostCluster last = geometry_.host_cluster_of(at + (length - 1));
  for (HostCluster it = geometry_.host_cluster_of(at); it <= last; ++it) {
    ASSIGN_OR_RETURN(const uint64_t count, refcounts_.get(it));
    RETURN_IF_ERROR(refcounts_.assign(it, count + times));
  }
  return {};
}

void ClusterMoves::drop_references(HostOffset at, uint64_t length, uint64_t times) {
  const HostCluster last = geometry_.host_cluster_of(at + (length - 1));
  for (HostCluster it = geometry_.host_cluster_of(at); it <= last; ++it)
    drops_.push_back({it, times});
}

Result<void> ClusterMoves::copy_some_sectors(const Copy& copy) {
  std::vector<std::byte> bytes(copy.length);
  // The file may end inside the last sector: the missing part reads as zeros.
  RETURN_IF_ERROR(storage_->read(copy.from, bytes));
  return storage_->write(copy.to, bytes);
}

Result<void> ClusterMoves::write_copies() {
  for (const Copy& it : copies_) {
    Storage& storage = it.content == Content::kGuestData ? *data_ : *storage_;
    RETURN_IF_ERROR(it.sectors ? copy_some_sectors(it)
                               : copy_cluster(storage, it.from, it.to, it.length));
  }
  copies_.clear();
  for (const Fresh& it : fresh_) RETURN_IF_ERROR(storage_->write(it.at, it.bytes));
  fresh_.clear();
  return {};
}

// Writes the words page by page.
Result<void> ClusterMoves::write_words() {
  std::sort(words_.begin(), words_.end(), [](const Word& a, const Word& b) { return a.at < b.at; });
  const uint64_t page_size = std::min(kWordPage, geometry_.cluster_size());
  std::vector<std::byte> page(page_size);
  for (size_t i = 0; i < words_.size();) {
    const HostOffset begin(round_down(words_[i].at.value(), page_size));
    ASSIGN_OR_RETURN(const size_t length, storage_->read(begin, page));
    for (; i < words_.size() && words_[i].at < begin + page_size; ++i) {
      const uint64_t offset = words_[i].at - begin;
      if (offset + 8 > length || load_be64(&page[offset]) != words_[i].before)
        return fail(Error::corrupt(
            fmt::format("{}: the word at {:#x} has changed meanwhile: another program writes to "
                        "the image",
                        storage_->name(), words_[i].at.value())));
      store_be64(&page[offset], words_[i].after);
    }
    RETURN_IF_ERROR(storage_->write(begin, std::span(page).first(length)));
  }
  words_.clear();
  return {};
}

Result<void> ClusterMoves::free_old() {
  std::sort(drops_.begin(), drops_.end(),
            [](const Drop& a, const Drop& b) { return a.cluster < b.cluster; });
  ClusterRun freed;
  const auto punch = [&] {
    if (freed.count > 0)
      storage_->discard(geometry_.start_of(freed.first), freed.count << geometry_.cluster_bits());
    freed.count = 0;
  };
  for (const Drop& it : drops_) {
    ASSIGN_OR_RETURN(const uint64_t count, refcounts_.get(it.cluster));
    if (count < it.times)
      return fail(Error::corrupt(
          fmt::format("{}: the cluster at {:#x} has a refcount of {}, and "
                      "more references: run a check",
                      storage_->name(), geometry_.start_of(it.cluster).value(), count)));
    RETURN_IF_ERROR(refcounts_.assign(it.cluster, count - it.times));
    if (count != it.times) continue;
    if (freed.count > 0 && freed.end() != it.cluster) punch();
    if (freed.count == 0) freed.first = it.cluster;
    ++freed.count;
  }
  punch();
  drops_.clear();
  return {};
}

Result<void> ClusterMoves::commit() {
  if (empty()) return {};
  RETURN_IF_ERROR(write_copies());
  RETURN_IF_ERROR(write_refcounts(*storage_, refcounts_));
  RETURN_IF_ERROR(write_words());
  RETURN_IF_ERROR(storage_->flush());
  return free_old();
}

}  // namespace vc::qcow2
