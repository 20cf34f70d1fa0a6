// The path of client requests to the writer: detects zeros in writes and gathers small trims, if
// enabled.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "nbdkit/core/discard_gatherer.h"
#include "qcow2/write/disk_writer.h"
#include "storage/offset.h"

namespace vc::plugin {

// Thread-safe, except for close().
class WritePath {
 public:
  struct Options {
    enum class DetectZeroes { kOff, kOn, kUnmap };
    DetectZeroes detect_zeroes = DetectZeroes::kOff;
    bool coalesce_discard = false;
    bool zero_fragments = false;  // for gathered trims
    qcow2::DiskWriter::Options writer;
  };

  WritePath(std::unique_ptr<qcow2::DiskWriter> writer, const Options& options);

  const qcow2::DiskWriter& writer() const { return *writer_; }

  // Ranges must lie within the disk.
  Result<void> write(GuestOffset at, std::span<const std::byte> from);
  // `unmap`: deallocates the range in the file.
  Result<void> zero(GuestOffset at, uint64_t length, bool unmap);
  Result<void> trim(GuestOffset at, uint64_t length);
  Result<void> flush();

  // Whether any range was trimmed.
  bool trimmed() const { return trimmed_; }

  // Closes the writer. No request may be in progress or follow.
  Result<void> close();

 private:
  Result<void> write_pieces(GuestOffset at, std::span<const std::byte> from);
  Result<void> send(nbdkit::DiscardGatherer::Batch& batch);
  void send_fragments();

  const Options options_;
  const std::unique_ptr<qcow2::DiskWriter> writer_;
  std::unique_ptr<nbdkit::DiscardGatherer> gatherer_;  // nullptr if trims are not gathered
  std::atomic<bool> trimmed_{false};
};

}  // namespace vc::plugin
