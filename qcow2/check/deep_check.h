// Decodes compressed clusters, and checks their descriptors.
#pragma once

#include <optional>

#include "qcow2/check/finding.h"
#include "qcow2/check/l2_check.h"
#include "qcow2/format/decoder_pool.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Thread-safe.
class DeepCheck {
 public:
  // All arguments must outlive the object.
  DeepCheck(const Storage& storage, const Header& header, uint64_t file_size)
      : storage_(storage), header_(header), file_size_(file_size) {}

  struct Answer {
    bool decoded = false;
    // Bytes of the file that the stream uses; the descriptor's length if the stream is damaged.
    uint64_t length = 0;
    // Without the times and the snapshot.
    std::optional<Finding> finding;
  };
  Answer check(const CompressedReference& cluster);

 private:
  const Storage& storage_;
  const Header& header_;
  const uint64_t file_size_;
  DecoderPool decoders_;
};

}  // namespace vc::qcow2
