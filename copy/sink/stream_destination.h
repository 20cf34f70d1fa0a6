// Standard output as the destination.
#pragma once

#include <memory>
#include <string>

#include "base/stop.h"
#include "copy/sink/destination.h"
#include "copy/sink/qcow2_sink.h"
#include "copy/sink/raw_sink.h"
#include "copy/sink/stream_storage.h"
#include "storage/output_file.h"

namespace vc::copy {

// A destination without a temporary file: a raw disk, or an image whose first cluster is known.
class StreamDestination final : public Destination {
 public:
  // `start`: the first cluster, found by a first pass.
  static Result<std::unique_ptr<StreamDestination>> qcow2_image(int fd, const std::string& name,
                                                                std::vector<std::byte> start,
                                                                const Qcow2Sink::Options& options,
                                                                const Stop& stop);
  static std::unique_ptr<StreamDestination> raw(int fd, const std::string& name, uint64_t size,
                                                const qcow2::Geometry& geometry, const Stop& stop);

  Sink& sink() override { return qcow2_ ? static_cast<Sink&>(*qcow2_) : *raw_; }
  Result<void> set_size(uint64_t size) override;
  Result<void> write_out() override;
  Result<void> complete() override { return {}; }
  Result<std::optional<FileSize>> measure() override;

 private:
  StreamDestination(int fd, const std::string& name, std::vector<std::byte> start, const Stop& stop)
      : storage_(fd, name, std::move(start), stop) {}

  StreamStorage storage_;
  std::unique_ptr<Qcow2Sink> qcow2_;  // exactly one of the two is set
  std::unique_ptr<RawSink> raw_;
};

// An image that is spooled in an unnamed file until it is complete.
class SpooledDestination final : public Destination {
 public:
  static Result<std::unique_ptr<SpooledDestination>> create(int fd, const std::string& name,
                                                            const std::string& folder,
                                                            const Qcow2Sink::Options& options,
                                                            const Stop& stop);

  Sink& sink() override { return *sink_; }
  Qcow2Sink* image_sink() override { return sink_.get(); }
  Result<void> set_size(uint64_t size) override { return sink_->shrink_to(size); }
  Result<void> write_out() override;
  Result<void> complete() override { return {}; }
  Result<std::optional<FileSize>> measure() override;

  const OutputFile& file() const { return *file_; }

 private:
  SpooledDestination(int fd, std::string name, std::unique_ptr<OutputFile> file, const Stop& stop)
      : fd_(fd), name_(std::move(name)), file_(std::move(file)), stop_(stop) {}

  const int fd_;
  const std::string name_;
  const std::unique_ptr<OutputFile> file_;
  const Stop& stop_;
  std::unique_ptr<Qcow2Sink> sink_;
};

}  // namespace vc::copy
