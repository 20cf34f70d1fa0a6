// A source as a guest's disk, for the readers of its filesystems.
#pragma once

#include <cstdint>
#include <vector>

#include "copy/source/source.h"
#include "guest/reading/byte_view.h"

namespace copy {

// The source must outlive the view; neither may be used by two threads at once, nor while a
// pipeline runs on the source.
class SourceView final : public guest::DiskView {
 public:
  SourceView(Source& source, size_t number) : DiskView(number), source_(source) {}

  uint64_t size() const override { return source_.size(); }

 private:
  qcow2::Result<void> fetch(uint64_t at, std::span<std::byte> to) const override;

  Source& source_;
};

// How many bytes of `ranges` the source says are data.
qcow2::Result<uint64_t> data_within(Source& source, const guest::Ranges& ranges);

}  // namespace copy
