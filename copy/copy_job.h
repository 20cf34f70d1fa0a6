// The steps of a copy: opens source and destination, decides the layout, runs the pipeline.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/rate_limit.h"
#include "base/stop.h"
#include "copy/copy_options.h"
#include "copy/copy_summary.h"
#include "copy/pipeline/pipeline.h"
#include "copy/source/any_source.h"
#include "nbd/target.h"
#include "qcow2/format/build_options.h"

namespace vc::copy {

// One copy, from its options to its summary.
class CopyJob {
 public:
  CopyJob(const CopyOptions& options, Progress& progress, const Cancel& cancel)
      : options_(options),
        progress_(progress),
        cancel_(cancel),
        stop_(cancel),
        limit_(options.rate_limit) {}

  Result<CopySummary> run();
  Result<void> check();

 protected:
  // The type of the destination.
  enum class Kind { kFile, kDevice, kServer, kStream, kNull };

  Result<uint64_t> unit_of_update();
  Result<void> open_source();
  Result<void> leave_out_free_space();
  Result<void> look_at_destination();
  Result<void> decide();
  Result<std::unique_ptr<Destination>> open_destination();
  Result<std::unique_ptr<Destination>> open_stream();
  Result<std::vector<std::byte>> first_pass();
  Result<void> run_pipeline(Sink& sink);
  Result<void> run_part(Sink& sink, const Pipeline::Options& how);
  Result<void> check_late_source();
  Result<void> go_on_with_late_source();
  Result<uint64_t> dry_run();
  Result<void> check_device();
  Result<CopySummary> foretell();
  void sum_up(std::chrono::steady_clock::time_point start);
  Result<void> verify_copy(const std::string& path);
  Result<std::string> backing_path() const;
  Result<std::string> keep_backing_file();
  Pipeline::Options plan() const;

  uint64_t hole_size(uint64_t usual) const {
    return options_.sparse_size != 0 ? options_.sparse_size : usual;
  }
  NbdSource::Options nbd_source() const {
    NbdSource::Options how;
    how.tuning = options_.nbd;
    return how;
  }
  bool is_stream() const { return source_->get().size() == Source::kUnknownSize; }
  bool is_update() const { return !options_.bitmap.empty(); }
  bool keeps_backing() const { return !options_.image.backing_file.empty(); }
  std::optional<qcow2::CompressionType> kept_compression() const;

  const CopyOptions& options_;
  Progress& progress_;
  const Cancel& cancel_;
  Stop stop_;
  mutable RateLimit limit_;  // thread-safe

  std::optional<AnySource> source_;
  Kind kind_ = Kind::kFile;
  std::optional<nbd::NbdTarget> server_;
  qcow2::Format format_ = qcow2::Format::kQcow2;
  qcow2::BuildOptions build_;  // for a QCOW2 destination
  ClusterWorker::Options worker_;
  std::optional<Digests> digests_;
  CopySummary summary_;
};

}  // namespace vc::copy
