// Files and block devices as destinations.
#pragma once

#include <memory>
#include <string>

#include "copy/sink/destination.h"
#include "copy/sink/image_options.h"
#include "copy/sink/qcow2_sink.h"
#include "copy/sink/raw_sink.h"
#include "storage/file_size.h"
#include "storage/file_storage.h"
#include "storage/output_file.h"

namespace vc::copy {

// A writable target: a new file, which has no name until it is complete, or an existing block
// device.
class OutputTarget {
 public:
  static Result<OutputTarget> open(const std::string& path, bool overwrite);

  Storage& storage() const;
  // Returns nullptr for a block device.
  OutputFile* file() const { return file_.get(); }
  // Returns nullptr for a file.
  FileStorage* device() const { return device_.get(); }

  // Reserves space for `length` bytes, or writes zeros where nothing was written.
  Result<void> preallocate(Preallocation how, uint64_t length);
  Result<void> flush();
  Result<void> complete();
  Result<std::optional<FileSize>> measure() const;
  Result<Descriptor> share() const;

 private:
  std::unique_ptr<OutputFile> file_;
  std::shared_ptr<FileStorage> device_;
};

// A QCOW2 image, with its external data file if it has one.
class Qcow2Destination final : public Destination {
 public:
  static Result<std::unique_ptr<Qcow2Destination>> create(const std::string& path, bool overwrite,
                                                          const qcow2::BuildOptions& build,
                                                          Preallocation preallocation);

  Sink& sink() override { return *sink_; }
  Qcow2Sink* image_sink() override { return sink_.get(); }
  // Returns the file that stores the guest data; nullptr for a block device.
  OutputFile* data_file() const { return data_ ? data_->file() : target_.file(); }
  // Clones into that file. Must precede the first chunk.
  void set_cloning(std::shared_ptr<Cloning> cloning) { sink_->set_cloning(std::move(cloning)); }
  Result<void> set_size(uint64_t size) override;
  Result<void> write_out() override;
  std::optional<std::string> path_to_read() const override;
  Result<void> complete() override;
  Result<Descriptor> share() const override { return target_.share(); }
  Result<std::optional<FileSize>> measure() override;

  const OutputTarget& target() const { return target_; }

 private:
  Qcow2Destination(OutputTarget target, const qcow2::BuildOptions& build,
                   Preallocation preallocation)
      : target_(std::move(target)), build_(build), preallocation_(preallocation) {}

  OutputTarget target_;
  std::optional<OutputTarget> data_;
  qcow2::BuildOptions build_;
  const Preallocation preallocation_;
  std::unique_ptr<Qcow2Sink> sink_;
};

class RawDestination final : public Destination {
 public:
  // `geometry`: cluster size of zero detection. `zeroed`: the device reads as zeros.
  static Result<std::unique_ptr<RawDestination>> create(const std::string& path, bool overwrite,
                                                        uint64_t size,
                                                        const qcow2::Geometry& geometry,
                                                        Preallocation preallocation, bool zeroed);

  Sink& sink() override { return *sink_; }
  // As for an image.
  OutputFile* data_file() const { return target_.file(); }
  void set_cloning(std::shared_ptr<Cloning> cloning) { sink_->set_cloning(std::move(cloning)); }
  Result<void> set_size(uint64_t size) override;
  Result<void> write_out() override;
  std::optional<std::string> path_to_read() const override;
  Result<void> complete() override { return target_.complete(); }
  Result<Descriptor> share() const override { return target_.share(); }
  Result<std::optional<FileSize>> measure() override { return target_.measure(); }

  const OutputTarget& target() const { return target_; }

 private:
  RawDestination(OutputTarget target, uint64_t size, Preallocation preallocation)
      : target_(std::move(target)), size_(size), preallocation_(preallocation) {}

  OutputTarget target_;
  uint64_t size_;
  const Preallocation preallocation_;
  std::unique_ptr<RawSink> sink_;
};

}  // namespace vc::copy
