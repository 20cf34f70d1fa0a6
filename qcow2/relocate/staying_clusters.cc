#include "qcow2/relocate/staying_clusters.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "qcow2/check/checker.h"

namespace vc::qcow2 {

namespace {

class LeakFinder final : public CheckObserver {
 public:
  using Add = std::function<void(const Finding&)>;
  LeakFinder(Progress& progress, const Cancel& cancel, Add add)
      : progress_(progress), cancel_(cancel), add_(std::move(add)) {}

  void found(const Finding& finding) override {
    if (finding.kind == Finding::Kind::kLeak) add_(finding);
  }
  void progress(uint64_t done, uint64_t total) override { progress_.update(done, total); }
  bool cancelled() override { return cancel_.requested(); }

 private:
  Progress& progress_;
  const Cancel& cancel_;
  const Add add_;
};

}  // namespace

Result<StayingClusters> StayingClusters::find(const Storage& storage, uint64_t count_memory,
                                              Progress& progress, const Cancel& cancel) {
  CheckOptions options;
  options.count_memory = count_memory;
  ASSIGN_OR_RETURN(auto checker, Checker::open(storage, options));
  const uint64_t clusters = checker.clusters();
  if (clusters > ClusterSet::kMostClusters)
    return fail(Error::unsupported(
        fmt::format("{}: has leaked clusters that cannot be freed, and {} clusters, too many to "
                    "work around them: see virt-compact check",
                    storage.name(), clusters)));
  StayingClusters staying;
  staying.set_.emplace(clusters);
  const Geometry geometry = checker.header().geometry();
  LeakFinder finder(progress, cancel, [&](const Finding& leak) {
    staying.add_leak(geometry.host_cluster_of(leak.host), leak.times);
  });
  RETURN_IF_ERROR(checker.run(finder));
  return staying;
}

void StayingClusters::add_leak(HostCluster first, uint64_t count) {
  const uint64_t begin = first.value() - (first.value() > 0 ? 1 : 0);
  // A leak past the end of the file is only a count.
  const uint64_t end = std::min(first.value() + count + 1, set_->clusters());
  for (uint64_t it = begin; it < end; ++it) set_->add(HostCluster(it));
  end_ = std::max(end_, HostCluster(end));
}

bool StayingClusters::touches(const Geometry& geometry, HostOffset at, uint64_t length) const {
  if (!set_) return false;
  const HostCluster last = geometry.host_cluster_of(at + (length - 1));
  for (HostCluster it = geometry.host_cluster_of(at); it <= last; ++it)
    if (contains(it)) return true;
  return false;
}

}  // namespace vc::qcow2
