#include "qcow2/check/table_walk.h"

#include <algorithm>
#include <vector>

#include "base/parallel.h"
#include "qcow2/format/l2_entry.h"
#include "storage/padded_read.h"

namespace vc::qcow2 {

namespace {

using Kind = Finding::Kind;
using Place = Finding::Place;

// Bytes of L2 tables to check together: all their findings are in memory at once.
constexpr uint64_t kChunkBytes = 4 << 20;
constexpr uint64_t kMostTablesAtOnce = 1024;
// Compressed clusters to decode together.
constexpr size_t kDeepSlice = 1024;
// The most compressed clusters at the end of the file to decode.
constexpr unsigned kMostEnds = 4096;

}  // namespace

// Tables that are checked together.
class TableWalk::Chunk {
 public:
  Chunk(TableWalk& walk, std::span<const TableReference> tables, const MetadataMap& metadata,
        ReferenceCounts& counts)
      : walk_(walk),
        image_(walk.image_),
        geometry_(walk.geometry_),
        tally_(walk.tally_),
        tables_(tables),
        metadata_(metadata),
        counts_(counts),
        results_(tables.size()),
        failed_(tables.size()),
        zeroed_(tables.size()) {}

  Result<void> run() {
    const L2Check check(image_.header, image_.file_size, walk_.recorded_, metadata_);
    parallel_for(tables_.size(), image_.options.threads, [&](size_t i) { read(check, i); });
    for (size_t i = 0; i < tables_.size(); ++i) report(i);
    for (size_t i = 0; i < tables_.size(); ++i) decode_ends(tables_[i], results_[i].at_end);
    if (!image_.options.deep) {
      tally_.progress(tables_.size() * geometry_.cluster_size());
      return {};
    }
    for (const TableResult& result : results_) {
      RETURN_IF_ERROR(decode_all(result.compressed));
      tally_.progress(geometry_.cluster_size());
    }
    return {};
  }

 private:
  // Thread-safe for different tables.
  void read(const L2Check& check, size_t i) {
    const TableReference& table = tables_[i];
    if (is_hole(image_.storage, image_.file_size, table.at, geometry_.cluster_size())) {
      find_zeroed_parts(table, {}, geometry_, zeroed_[i]);
      return;
    }
    std::vector<std::byte> bytes(geometry_.cluster_size());
    if (!read_padded(image_.storage, table.at, bytes)) {
      failed_[i] = 1;
      return;
    }
    find_zeroed_parts(table, bytes, geometry_, zeroed_[i]);
    check.check(table, static_cast<uint32_t>(i), bytes, image_.options.deep, results_[i]);
    for (const ClusterRun& run : results_[i].runs) counts_.add(run.first, run.count, table.times());
  }

  void report(size_t i) {
    if (failed_[i] != 0) tally_.report_unreadable(Place::kL2Table, tables_[i].at);
    for (const Finding& finding : results_[i].findings) tally_.report(finding);
    if (!tally_.first_pass()) return;
    tally_.lost().add(zeroed_[i]);
    const TableSums& own = results_[i].sums;
    CheckSums& sums = tally_.sums();
    sums.allocated_clusters += own.allocated * tables_[i].active;
    sums.fragmented_clusters += own.fragmented * tables_[i].active;
    sums.compressed_clusters += own.compressed * tables_[i].active;
    for (const ReadPiece& piece : results_[i].reads) {
      if (piece.compressed)
        walk_.order_.compressed(piece.at, piece.length);
      else
        walk_.order_.plain(piece.at, piece.length);
    }
  }

  // Checks streams that the end of the file may have truncated, by decoding them.
  void decode_ends(const TableReference& table, std::span<const CompressedReference> all) {
    if (!tally_.first_pass()) return;
    for (const CompressedReference& it : all) {
      const auto descriptor = CompressedDescriptor::decode(it.word, geometry_.cluster_bits());
      // Those past the end are reported already.
      if (walk_.decoded_ends_ >= kMostEnds ||
          L2Check::outside(descriptor.offset, descriptor.readable_bytes(), image_.file_size,
                           geometry_.cluster_size()))
        continue;
      ++walk_.decoded_ends_;
      auto answer = walk_.deep_.check(it);
      if (!answer.decoded && answer.finding) report(table, *answer.finding);
    }
  }

  Result<void> decode_all(std::span<const CompressedReference> all) {
    std::vector<DeepCheck::Answer> answers;
    for (size_t from = 0; from < all.size(); from += kDeepSlice) {
      const auto slice = all.subspan(from, std::min(kDeepSlice, all.size() - from));
      answers.assign(slice.size(), {});
      parallel_for(slice.size(), image_.options.threads,
                   [&](size_t i) { answers[i] = walk_.deep_.check(slice[i]); });
      for (size_t i = 0; i < slice.size(); ++i) take(tables_[slice[i].table], slice[i], answers[i]);
      RETURN_IF_ERROR(tally_.go_on());
    }
    return {};
  }

  void take(const TableReference& table, const CompressedReference& cluster,
            const DeepCheck::Answer& answer) {
    if (tally_.first_pass()) {
      tally_.sums().decoded_clusters += answer.decoded ? 1 : 0;
      tally_.sums().undecodable_clusters += answer.decoded ? 0 : 1;
    }
    if (answer.finding) report(table, *answer.finding);
    const auto descriptor = CompressedDescriptor::decode(cluster.word, geometry_.cluster_bits());
    const uint64_t first = geometry_.host_cluster_of(descriptor.offset).value();
    const uint64_t count =
        geometry_.host_cluster_of(descriptor.offset + (answer.length - 1)).value() + 1 - first;
    counts_.add(HostCluster(first), count, table.times());
    if (const auto* const metadata = metadata_.find(first, count)) {
      Finding it{};
      it.kind = Kind::kOverlap;
      it.place = Place::kCompressed;
      it.other = metadata->place;
      it.host = HostOffset(std::max(first, metadata->first) << geometry_.cluster_bits());
      it.guest = cluster.guest;
      it.entry = cluster.entry;
      it.found = cluster.word;
      report(table, it);
    }
  }

  void report(const TableReference& table, Finding it) {
    it.times = table.times();
    it.snapshot = table.snapshot;
    tally_.report(it);
  }

  TableWalk& walk_;
  const CheckedImage& image_;
  const Geometry geometry_;
  CheckTally& tally_;
  const std::span<const TableReference> tables_;
  const MetadataMap& metadata_;
  ReferenceCounts& counts_;
  std::vector<TableResult> results_;
  std::vector<char> failed_;
  std::vector<std::vector<ZeroedTable>> zeroed_;
};

Result<void> TableWalk::walk(std::span<const TableReference> tables, const MetadataMap& metadata,
                             ReferenceCounts& counts) {
  tally_.expect(tables.size() * geometry_.cluster_size());
  const size_t at_once =
      std::clamp<uint64_t>(kChunkBytes >> geometry_.cluster_bits(), 1, kMostTablesAtOnce);
  for (size_t at = 0; at < tables.size(); at += at_once) {
    RETURN_IF_ERROR(tally_.go_on());
    const auto some = tables.subspan(at, std::min(at_once, tables.size() - at));
    RETURN_IF_ERROR(Chunk(*this, some, metadata, counts).run());
  }
  return {};
}

}  // namespace vc::qcow2
