// Storage that simulates a loss of power.
#pragma once

#include <cstdint>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "storage/storage.h"

namespace vc::test {

// Storage in memory that records all writes since the last flush. After a loss of power, a disk may
// have done any part of them.
class CrashStorage final : public Storage {
 public:
  explicit CrashStorage(std::vector<std::byte> bytes) : safe_(bytes), bytes_(std::move(bytes)) {}

  const std::string& name() const override { return name_; }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override;
  Result<void> write(HostOffset at, std::span<const std::byte> from) override;
  Result<void> flush() override;
  Result<uint64_t> size() const override;
  Result<void> resize(uint64_t size) override;
  void discard(HostOffset at, uint64_t length) override;
  Result<Run> run_at(HostOffset at, uint64_t limit) const override;

  // Returns a possible file after a loss of power now: all flushed data, and of each later write
  // all, none, or some of its sectors.
  std::vector<std::byte> after_crash(std::mt19937_64& random) const;

  // Makes all writes fail with ENOSPC, beginning with the n-th from now. 0: none fails.
  void fail_after(uint64_t writes);

  // From now on, each flush first appends some possible states after a loss of power. A flush is
  // the most critical moment.
  void crash_at_flushes(std::vector<std::vector<std::byte>>& crashes, uint64_t seed);

 private:
  std::vector<std::byte> crashed(std::mt19937_64& random) const;  // with mutex_ held

  struct Write {
    uint64_t at;
    std::vector<std::byte> bytes;
  };

  std::string name_ = "crash";
  mutable std::mutex mutex_;
  std::vector<std::byte> safe_;   // guarded by mutex_; as of the last flush
  std::vector<std::byte> bytes_;  // guarded by mutex_; as a reader sees it
  std::vector<Write> pending_;    // guarded by mutex_; since then, in order
  uint64_t until_failure_ = 0;    // guarded by mutex_
  bool failing_ = false;          // guarded by mutex_
  std::vector<std::vector<std::byte>>* crashes_ = nullptr;  // guarded by mutex_
  std::mt19937_64 crash_random_;                            // guarded by mutex_
};

}  // namespace vc::test
