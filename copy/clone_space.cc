#include "copy/clone_space.h"

#include "copy/clone_plan.h"
#include "copy/copy_source.h"
#include "copy/snapshot_copy.h"
#include "copy/space_check.h"
#include "storage/directory.h"
#include "storage/output_file.h"

namespace vc::copy {

Result<std::optional<uint64_t>> space_with_clones(const CopyOptions& options,
                                                  const Cancel& cancel) {
  std::optional<uint64_t> none;
  const Stop stop(cancel);
  ASSIGN_OR_RETURN(CopySource source, CopySource::open(options, cancel, stop));
  ASSIGN_OR_RETURN(const auto destination, DestinationType::probe(options));
  ASSIGN_OR_RETURN(CopyPlan plan, CopyPlan::create(options, destination, source.get()));
  ASSIGN_OR_RETURN(const bool may, may_clone(options, plan, source.get()));
  if (!may) return none;
  ASSIGN_OR_RETURN(const auto scratch,
                   OutputFile::create_scratch(Directory::parent_of(options.destination),
                                              Directory::name_of(options.destination)));
  Cloning::Options how;
  how.mode = options.reflink;
  how.cluster_size = plan.worker.geometry.cluster_size();
  ASSIGN_OR_RETURN(plan.worker.cloning, Cloning::create(*scratch, how, source.get().files()));
  if (!plan.worker.cloning) return none;
  ASSIGN_OR_RETURN(const uint64_t live,
                   count_live_clusters(source.get(), plan.worker.geometry, stop));
  ASSIGN_OR_RETURN(const uint64_t data, bytes_with_clones(source.get(), live, plan.worker, stop));
  uint64_t others = 0;
  ASSIGN_OR_RETURN(const auto snapshots, SnapshotCopy::open(options, source, plan));
  if (snapshots) {
    ASSIGN_OR_RETURN(others, snapshots->bytes_with_clones(stop));
  }
  const bool is_image = destination.format == qcow2::Format::kQcow2;
  const uint64_t metadata = is_image ? qcow2::Builder::metadata_bytes(plan.build, live) : 0;
  return std::optional(data + others + metadata);
}

}  // namespace vc::copy
