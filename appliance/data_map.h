// Which parts of a disk take room.
#pragma once

#include <cstdint>
#include <vector>

namespace vc::appliance {

// Disjoint stretches of a disk, in order, none touching the next.
class DataMap {
 public:
  struct Stretch {
    uint64_t begin;  // bytes
    uint64_t end;    // bytes; greater than `begin`
    friend bool operator==(const Stretch&, const Stretch&) = default;
  };

  // At or behind the end of what was added before.
  void add(uint64_t begin, uint64_t end);

  const std::vector<Stretch>& stretches() const { return stretches_; }
  uint64_t bytes() const;

  // Each stretch made larger to multiples of `granularity` (bytes, a power of two).
  DataMap widened(uint64_t granularity) const;
  // What is in this one, and not in `other`.
  DataMap without(const DataMap& other) const;

 private:
  std::vector<Stretch> stretches_;
};

}  // namespace vc::appliance
