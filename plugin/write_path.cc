#include "plugin/write_path.h"

#include <algorithm>
#include <utility>

#include "nbdkit/core/zero_runs.h"

namespace vc::plugin {

using nbdkit::DiscardGatherer;

namespace {

// Zeros shorter than a page are not worth a lookup in the map.
constexpr uint64_t kLeastZeros = 4096;

}  // namespace

WritePath::WritePath(std::unique_ptr<qcow2::DiskWriter> writer, const Options& options)
    : options_(options), writer_(std::move(writer)) {
  if (!options.coalesce_discard || !options.writer.discard) return;
  const uint64_t cluster_size = writer_->image().geometry().cluster_size();
  nbdkit::DiscardGatherer::Options gathering;
  gathering.size = writer_->size();
  gathering.granularity = cluster_size;
  // With extended L2 entries, subclusters can be deallocated, too.
  gathering.smallest = writer_->image().geometry().subcluster_size();
  gathering.zero_fragments = options.zero_fragments;
  gatherer_ = std::make_unique<nbdkit::DiscardGatherer>(gathering);
}

Result<void> WritePath::write_pieces(GuestOffset at, std::span<const std::byte> from) {
  if (options_.detect_zeroes == Options::DetectZeroes::kOff) return writer_->write(at, from);
  const bool unmap =
      options_.detect_zeroes == Options::DetectZeroes::kUnmap && options_.writer.discard;
  const uint64_t unit = std::max(writer_->image().geometry().subcluster_size(), kLeastZeros);
  nbdkit::ZeroRuns runs(from, at.value(), unit);
  while (const auto run = runs.next()) {
    const GuestOffset begin(run->offset);
    if (run->zero)
      RETURN_IF_ERROR(writer_->zero(begin, run->length, unmap));
    else
      RETURN_IF_ERROR(writer_->write(begin, from.subspan(begin - at, run->length)));
  }
  return {};
}

Result<void> WritePath::write(GuestOffset at, std::span<const std::byte> from) {
  if (!gatherer_) return write_pieces(at, from);
  const auto writing = gatherer_->begin_write(at.value(), from.size());
  return write_pieces(at, from);
}

Result<void> WritePath::zero(GuestOffset at, uint64_t length, bool unmap) {
  unmap = unmap && options_.writer.discard;
  if (!gatherer_) return writer_->zero(at, length, unmap);
  const auto writing = gatherer_->begin_write(at.value(), length);
  return writer_->zero(at, length, unmap);
}

// Errors of fragments are ignored: no promise to a client depends on them.
Result<void> WritePath::send(nbdkit::DiscardGatherer::Batch& batch) {
  using Kind = nbdkit::DiscardGatherer::Piece::Kind;
  while (const auto piece = batch.next()) {
    const GuestOffset at(piece->offset);
    if (piece->kind == Kind::kGranules)
      RETURN_IF_ERROR(writer_->discard(at, piece->length));
    else if (piece->kind == Kind::kTrimFragment)
      (void)writer_->discard(at, piece->length);
    else
      (void)writer_->zero(at, piece->length, true);
  }
  return {};
}

Result<void> WritePath::trim(GuestOffset at, uint64_t length) {
  if (!options_.writer.discard) return {};
  trimmed_ = true;
  if (!gatherer_) return writer_->discard(at, length);
  auto batch = gatherer_->trim(at.value(), length);
  return send(batch);
}

void WritePath::send_fragments() {
  if (!gatherer_) return;
  auto batch = gatherer_->flush();
  (void)send(batch);
}

Result<void> WritePath::flush() {
  send_fragments();
  return writer_->flush();
}

Result<void> WritePath::close() {
  send_fragments();
  return writer_->close();
}

}  // namespace vc::plugin
