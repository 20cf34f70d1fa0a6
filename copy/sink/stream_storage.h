// A file that is written from its beginning to its end, into a pipe.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/stop.h"
#include "storage/storage.h"

namespace copy {

// The beginning, which a builder writes last, must be known beforehand: from a first pass over
// DryStorage.  What comes out of turn, since several threads write, waits in memory: that is no
// more than the chunks of a pipeline that are under way.
class StreamStorage final : public qcow2::Storage {
 public:
  // `start`: the bytes from 0 on, which need not be written; if they are, they must be the same.
  // `fd` is borrowed; `name` is what to call it.  `stop` outlives this: it ends the waiting for a
  // reader.
  StreamStorage(int fd, std::string name, std::vector<std::byte> start, const Stop& stop);
  ~StreamStorage() override;

  const std::string& name() const override { return name_; }
  qcow2::Result<void> write(qcow2::HostOffset at, std::span<const std::byte> from) override;
  qcow2::Result<void> write_zeroes(qcow2::HostOffset at, uint64_t length) override;
  // Nothing may be missing before `size`.
  qcow2::Result<void> resize(uint64_t size) override;
  qcow2::Result<uint64_t> size() const override;
  qcow2::Result<void> flush() override { return {}; }
  // A stream cannot be read.
  qcow2::Result<size_t> read(qcow2::HostOffset at, std::span<std::byte> to) const override;
  qcow2::Result<Run> run_at(qcow2::HostOffset at, uint64_t limit) const override;

 private:
  struct Piece {
    std::vector<std::byte> bytes;  // empty: zeros
    uint64_t length;
  };

  // With mutex_ held.
  qcow2::Result<void> send_waiting();
  qcow2::Result<void> send(std::span<const std::byte> bytes);
  qcow2::Result<void> send_zeros(uint64_t length);

  const std::string name_;
  const std::vector<std::byte> start_;
  const Stop& stop_;
  int fd_;
  bool owned_ = false;

  mutable std::mutex mutex_;
  uint64_t position_ = 0;              // guarded by mutex_: all before it is sent
  std::map<uint64_t, Piece> waiting_;  // guarded by mutex_: by offset, all behind position_
};

// Takes everything, and remembers only how long it was and how it begins: to learn what a file will
// be like.
class DryStorage final : public qcow2::Storage {
 public:
  // `kept`: bytes from the beginning.
  explicit DryStorage(uint64_t kept) : start_(kept) {}

  const std::string& name() const override { return name_; }
  qcow2::Result<void> write(qcow2::HostOffset at, std::span<const std::byte> from) override;
  qcow2::Result<void> write_zeroes(qcow2::HostOffset /*at*/, uint64_t /*length*/) override {
    return {};
  }
  qcow2::Result<void> resize(uint64_t size) override;
  qcow2::Result<uint64_t> size() const override { return size_; }
  qcow2::Result<void> flush() override { return {}; }
  qcow2::Result<size_t> read(qcow2::HostOffset at, std::span<std::byte> to) const override;
  qcow2::Result<Run> run_at(qcow2::HostOffset at, uint64_t limit) const override;

  const std::vector<std::byte>& start() const { return start_; }

 private:
  const std::string name_ = "layout";
  std::vector<std::byte> start_;  // only the builder writes there, under the placer's lock
  uint64_t size_ = 0;
};

}  // namespace copy
