// A snapshot as the source of a copy: without the clusters that earlier states have.
#pragma once

#include <optional>
#include <vector>

#include "copy/source/source.h"
#include "copy/states/state_map.h"

namespace vc::copy {

class OwnClusters final : public Source {
 public:
  // `disk`: of the state, a source with no fetchers. `explicit_zeros`: zeros are copied, too. Both
  // must outlive the object, and `map` must not be used by another thread.
  OwnClusters(Source& disk, StateMap& map, size_t state, bool explicit_zeros)
      : disk_(disk), map_(map), state_(state), explicit_zeros_(explicit_zeros) {}

  const std::string& name() const override { return disk_.name(); }
  uint64_t size() const override { return disk_.size(); }
  std::optional<uint64_t> cluster_size() const override { return disk_.cluster_size(); }
  uint64_t alignment() const override { return disk_.alignment(); }
  // Clusters of earlier states are kUnallocated.
  Result<void> map(GuestOffset at, uint64_t length, std::vector<qcow2::Extent>& out) override;
  Result<void> read(GuestOffset at, std::span<std::byte> to) override { return disk_.read(at, to); }
  Result<void> load(Chunk& chunk, ClusterReader& reader) override {
    return disk_.load(chunk, reader);
  }
  const FileStorage* plain_file(uint32_t depth) const override { return disk_.plain_file(depth); }
  bool is_cheap_to_reread() const override { return true; }

 private:
  Result<bool> is_own(ClusterIndex cluster);
  Result<bool> split(const qcow2::Extent& extent, size_t first, std::vector<qcow2::Extent>& out);

  Source& disk_;
  StateMap& map_;
  const size_t state_;
  const bool explicit_zeros_;
  // The last answers.
  std::optional<uint64_t> table_;
  bool is_table_own_ = false;
  std::optional<ClusterIndex> cluster_;
  bool is_cluster_own_ = false;
};

}  // namespace vc::copy
