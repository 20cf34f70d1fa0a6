// Storage that writes sequentially into a pipe.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/stop.h"
#include "storage/descriptor.h"
#include "storage/storage.h"

namespace vc::copy {

// The beginning of the file, which a builder writes last, must be known in advance, from a first
// pass over DryStorage. Writes of several threads can come out of order. They wait in memory,
// bounded by the number of chunks in the pipeline.
class StreamStorage final : public Storage {
 public:
  // `start`: the first bytes of the file. They need not be written; if they are, they must be
  // equal. `fd` is borrowed; `name` is for messages. `stop` must outlive the storage; it ends the
  // wait for a reader.
  StreamStorage(int fd, std::string name, std::vector<std::byte> start, const Stop& stop);

  const std::string& name() const override { return name_; }
  Result<void> write(HostOffset at, std::span<const std::byte> from) override;
  Result<void> write_zeroes(HostOffset at, uint64_t length) override;
  // Returns an error if any byte before `size` is missing.
  Result<void> resize(uint64_t size) override;
  Result<uint64_t> size() const override;
  Result<void> flush() override { return {}; }
  // Reading a stream is an error.
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override;
  Result<Run> run_at(HostOffset at, uint64_t limit) const override;

 private:
  struct Piece {
    std::vector<std::byte> bytes;  // empty: zeros
    uint64_t length;
  };

  Result<void> send_waiting() REQUIRES(mutex_);
  Result<void> send(std::span<const std::byte> bytes) REQUIRES(mutex_);
  Result<void> send_zeros(uint64_t length) REQUIRES(mutex_);

  const std::string name_;
  const std::vector<std::byte> start_;
  const Stop& stop_;
  int fd_;          // borrowed, or own_
  Descriptor own_;  // the same pipe, opened again; or none

  mutable Mutex mutex_;
  uint64_t position_ GUARDED_BY(mutex_) = 0;              // bytes sent so far
  std::map<uint64_t, Piece> waiting_ GUARDED_BY(mutex_);  // by offset, all after position_
};

// Dry run: discards all data. Keeps the file's length and its first bytes.
class DryStorage final : public Storage {
 public:
  // `kept`: number of bytes to keep from the beginning.
  explicit DryStorage(uint64_t kept) : start_(kept) {}

  const std::string& name() const override { return name_; }
  Result<void> write(HostOffset at, std::span<const std::byte> from) override;
  Result<void> write_zeroes(HostOffset /*at*/, uint64_t /*length*/) override { return {}; }
  Result<void> resize(uint64_t size) override;
  Result<uint64_t> size() const override { return size_; }
  Result<void> flush() override { return {}; }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override;
  Result<Run> run_at(HostOffset at, uint64_t limit) const override;

  const std::vector<std::byte>& start() const { return start_; }

 private:
  const std::string name_ = "layout";
  std::vector<std::byte> start_;  // written only by the builder, under the placer's lock
  uint64_t size_ = 0;
};

}  // namespace vc::copy
