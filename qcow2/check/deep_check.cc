#include "qcow2/check/deep_check.h"

#include <algorithm>
#include <span>

#include "base/rounding.h"
#include "storage/padded_read.h"

namespace vc::qcow2 {

DeepCheck::Answer DeepCheck::check(const CompressedReference& cluster) {
  const Geometry geometry = header_.geometry();
  const unsigned bits = geometry.cluster_bits();
  const auto descriptor = CompressedDescriptor::decode(cluster.word, bits);
  Answer answer;
  answer.length = descriptor.readable_bytes();
  const auto tell = [&](Finding::Kind kind) -> Finding& {
    Finding it{};
    it.kind = kind;
    it.place = Finding::Place::kCompressed;
    it.host = descriptor.offset;
    it.guest = cluster.guest;
    it.entry = cluster.entry;
    it.found = cluster.word;
    return answer.finding.emplace(it);
  };

  // Reads as many sectors as any descriptor can name, in case this one names too few.  Bytes past
  // the end of the file are not read as zeros, except for the rest of a sector.
  const CompressedDescriptor widest{descriptor.offset, uint64_t{1} << (bits - 8)};
  const uint64_t file_end = round_up(file_size_, Geometry::kSectorSize);
  const uint64_t there =
      std::min(widest.readable_bytes(), file_end - std::min(file_end, descriptor.offset.value()));
  const uint64_t claimed = std::min(descriptor.readable_bytes(), there);
  auto context = decoders_.take();
  context->stream.resize(there);
  context->cluster.resize(geometry.cluster_size());
  if (!read_padded(storage_, descriptor.offset, context->stream)) {
    tell(Finding::Kind::kUnreadable).severity = Finding::Severity::kCheckError;
    return answer;
  }
  const std::span<const std::byte> stream(context->stream);
  const auto decode = [&](uint64_t length) {
    return context->decoder.decode_measured(header_.compression_type, stream.first(length),
                                            context->cluster);
  };
  auto used = decode(claimed);
  const bool too_short = !used;
  if (!used && there > claimed) used = decode(there);
  if (!used || *used == 0) {
    tell(descriptor.offset.value() + descriptor.readable_bytes() > file_size_
             ? Finding::Kind::kStreamTruncated
             : Finding::Kind::kStreamDamaged);
    return answer;
  }

  answer.decoded = true;
  const auto right = CompressedDescriptor::covering(descriptor.offset, *used);
  const auto last_cluster = [&](const CompressedDescriptor& it) {
    return geometry.host_cluster_of(it.offset + (it.readable_bytes() - 1));
  };
  if (too_short) {
    Finding& it = tell(Finding::Kind::kDescriptorTooShort);
    it.expected = right.encode(bits);
    it.repairable = true;
  } else if (right.sectors < descriptor.sectors) {
    Finding& it = tell(Finding::Kind::kDescriptorTooLong);
    it.expected = right.encode(bits);
    it.repairable = true;
    // The cluster is readable, and the extra length matters only if it claims another cluster.
    if (last_cluster(right) == last_cluster(descriptor)) it.severity = Finding::Severity::kNote;
  }
  answer.length = right.readable_bytes();
  return answer;
}

}  // namespace vc::qcow2
