// A source as a guest's disk, for filesystem readers.
#pragma once

#include <cstdint>
#include <vector>

#include "base/cancel.h"
#include "copy/source/source.h"
#include "guest/reading/byte_view.h"

namespace vc::copy {

// The source and `cancel` must outlive the view. Neither is thread-safe, and neither may be used
// concurrently with a pipeline on the source.
class SourceView final : public guest::DiskView {
 public:
  SourceView(Source& source, size_t number, const Cancel& cancel)
      : DiskView(number, &cancel), source_(source) {}

  uint64_t size() const override { return source_.size(); }

 private:
  Result<void> fetch(uint64_t at, std::span<std::byte> to) const override;

  Source& source_;
};

// Returns the number of bytes of `ranges` that are data according to the source.
Result<uint64_t> data_within(Source& source, const guest::Ranges& ranges, const Cancel& cancel);

}  // namespace vc::copy
