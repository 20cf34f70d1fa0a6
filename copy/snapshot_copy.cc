#include "copy/snapshot_copy.h"

#include <fmt/format.h>

#include <algorithm>

#include "copy/sink/digest_sink.h"
#include "copy/states/own_clusters.h"
#include "qcow2/format/refcount_block.h"

namespace vc::copy {

namespace {

using qcow2::Geometry;

Result<void> check_can_carry(const CopyOptions& options, const CopyPlan& plan) {
  const auto refuse = [](const std::string& why) {
    return fail(Error::invalid("internal snapshots cannot be carried: " + why));
  };
  if (plan.destination.format != qcow2::Format::kQcow2)
    return refuse(options.destination + ": a raw disk has no snapshots: use -O qcow2");
  if (!options.snapshot.empty())
    return refuse("the copy of one snapshot (--snapshot) is a disk without snapshots");
  if (options.is_update()) return refuse("--bitmap updates the active disk of an earlier copy");
  if (options.salvage)
    return refuse(
        "--salvage reads only the active disk of a damaged image: save the snapshots with "
        "--snapshot NAME, one by one");
  if (!plan.build.data_file.empty())
    return refuse("an image with an external data file (data_file) cannot have snapshots");
  return {};
}

unsigned order_for_references(uint64_t most, unsigned order) {
  while (qcow2::max_refcount(order) < most) ++order;
  return order;
}

// Raises the refcount width, unless the options fix it.
Result<void> widen_refcounts(const CopyOptions& options, size_t snapshots,
                             qcow2::BuildOptions& build) {
  const uint64_t states = snapshots + 1;
  const bool is_fixed = options.image.refcount_order || build.version < 3;
  const unsigned order = is_fixed ? order_for_references(states, build.refcount_order)
                                  : refcount_order_for(snapshots, build.refcount_order);
  if (is_fixed && order != build.refcount_order)
    return fail(Error::invalid(fmt::format(
        "{}: refcount_bits={} is too small for {} snapshot{}, which may all share a cluster with "
        "the disk: {} bits are needed{}",
        options.destination, 1u << build.refcount_order, snapshots, snapshots == 1 ? "" : "s",
        1u << order, build.version < 3 ? ", which compat=0.10 does not have" : "")));
  build.refcount_order = order;
  return {};
}

}  // namespace

unsigned refcount_order_for(size_t snapshots, unsigned order) {
  return snapshots == 0 ? order : order_for_references(uint64_t{snapshots} + 2, order);
}

Result<std::unique_ptr<SnapshotCopy>> SnapshotCopy::open(const CopyOptions& options,
                                                         CopySource& source, CopyPlan& plan) {
  if (!options.snapshots) return std::unique_ptr<SnapshotCopy>();
  RETURN_IF_ERROR(check_can_carry(options, plan));
  ASSIGN_OR_RETURN(auto carried, CarriedSnapshots::open(*options.snapshots, source.get()));
  if (carried.all().empty()) return std::unique_ptr<SnapshotCopy>();
  RETURN_IF_ERROR(widen_refcounts(options, carried.all().size(), plan.build));
  std::unique_ptr<SnapshotCopy> it(new SnapshotCopy(options, source, plan, std::move(carried)));
  RETURN_IF_ERROR(it->keep_shared_space());
  RETURN_IF_ERROR(it->open_maps());
  return it;
}

Result<StateMap::Active> SnapshotCopy::active() const {
  ASSIGN_OR_RETURN(auto active, carried_.active(source_.get()));
  active.unused = source_.unused();
  active.preallocated = options_.image.preallocation != Preallocation::kOff;
  return active;
}

// The part of a shared cluster that the guest does not use stays in the active disk: without it,
// the cluster would be stored twice.
Result<void> SnapshotCopy::keep_shared_space() {
  const auto unused = source_.unused();
  if (!unused) return {};
  const Geometry& geometry = plan_.worker.geometry;
  ASSIGN_OR_RETURN(auto active, carried_.active(source_.get()));
  ASSIGN_OR_RETURN(const auto map, carried_.map(geometry, std::move(active)));
  const auto cut = [&](uint64_t at, uint64_t instead) -> Result<uint64_t> {
    if (geometry.offset_in_cluster(at) == 0 || at >= source_.get().size()) return at;
    ASSIGN_OR_RETURN(const uint64_t states,
                     map->states_with(0, geometry.cluster_of(GuestOffset(at))));
    return states > 1 ? instead : at;
  };
  guest::Ranges::Builder kept;
  for (const guest::Range& it : unused->all()) {
    ASSIGN_OR_RETURN(const uint64_t begin,
                     cut(it.begin, geometry.clusters_for(it.begin) << geometry.cluster_bits()));
    ASSIGN_OR_RETURN(const uint64_t end, cut(it.end, it.end - geometry.offset_in_cluster(it.end)));
    if (begin < end) kept.add(begin, end);
  }
  source_.leave_out(std::make_shared<const guest::Ranges>(kept.take()));
  return {};
}

Result<void> SnapshotCopy::open_maps() {
  for (auto* const map : {&shared_, &own_}) {
    ASSIGN_OR_RETURN(auto active, this->active());
    ASSIGN_OR_RETURN(*map, carried_.map(plan_.worker.geometry, std::move(active)));
  }
  return {};
}

Result<void> SnapshotCopy::take_late_source() {
  for (auto* const map : {&shared_, &own_}) {
    ASSIGN_OR_RETURN(auto active, this->active());
    (*map)->set_active(std::move(active));
  }
  return {};
}

uint64_t SnapshotCopy::total() const {
  const uint64_t snapshots = carried_.total();
  const uint64_t active = source_.get().size();
  return snapshots > UINT64_MAX - 1 - active ? UINT64_MAX - 1 : snapshots + active;
}

Result<void> SnapshotCopy::begin(Qcow2Sink& sink) {
  digests_.clear();
  clusters_ = 0;
  return sink.carry(*shared_);
}

// Opens the disk of a snapshot as the copy reads it.
Result<std::unique_ptr<LocalSource>> SnapshotCopy::open_disk(const CarriedSnapshots& of,
                                                             size_t number) const {
  ASSIGN_OR_RETURN(auto disk, of.disk(number));
  if (options_.keeps_backing()) {
    ASSIGN_OR_RETURN(const std::string base, backing_path(options_, plan_.destination));
    RETURN_IF_ERROR(disk->keep_backing(base, plan_.worker.geometry.cluster_size()));
  }
  return disk;
}

Digests* SnapshotCopy::new_digests(uint64_t size) {
  if (!options_.verify) return nullptr;
  digests_.push_back(std::make_unique<Digests>(Digests::coarse(
      size, plan_.worker.geometry.cluster_size(),
      options_.keeps_backing() ? Digests::Zeros::kTold : Digests::Zeros::kImplied)));
  return digests_.back().get();
}

Result<void> SnapshotCopy::run_part(Source& part, Digests* digests, Qcow2Sink& sink,
                                    RateLimit* limit, PartProgress& progress, Stop& stop) {
  progress.next();
  if (part.size() == 0) return {};
  Pipeline::Options how = plan_.pipeline(options_, part);
  how.limit = limit;
  std::optional<DigestSink> digesting;
  if (digests) digesting.emplace(sink, *digests, plan_.worker.compression.type);
  Pipeline pipeline(part, digesting ? static_cast<Sink&>(*digesting) : sink, progress, stop, how);
  RETURN_IF_ERROR(pipeline.run());
  if (stop.requested()) return fail(Error::cancelled());
  progress.update(part.size(), part.size());
  clusters_ += pipeline.counts().data + pipeline.counts().compressed;
  return {};
}

Result<void> SnapshotCopy::run(Qcow2Sink& sink, RateLimit* limit, PartProgress& progress,
                               Stop& stop) {
  for (size_t i = 0; i < count(); ++i) {
    const qcow2::Snapshot& snapshot = carried_.all()[i];
    const std::string where = fmt::format("snapshot '{}'", snapshot.name);
    RETURN_IF_ERROR(with_context(sink.begin_snapshot(snapshot), where));
    ASSIGN_OR_RETURN(const auto disk, open_disk(carried_, i));
    OwnClusters own(*disk, *own_, i + 1, options_.keeps_backing());
    RETURN_IF_ERROR(
        with_context(run_part(own, new_digests(disk->size()), sink, limit, progress, stop), where));
    RETURN_IF_ERROR(with_context(sink.begin_vm_state(), where));
    ASSIGN_OR_RETURN(const auto vm_state, carried_.vm_state(i));
    RETURN_IF_ERROR(with_context(
        run_part(*vm_state, new_digests(vm_state->size()), sink, limit, progress, stop), where));
  }
  return {};
}

}  // namespace vc::copy
