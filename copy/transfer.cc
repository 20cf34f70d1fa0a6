#include "copy/transfer.h"

#include <cstdlib>

#include "copy/sink/qcow2_sink.h"
#include "copy/sink/stream_storage.h"
#include "storage/output_file.h"

namespace vc::copy {

std::string spool_folder(const CopyOptions& options) {
  if (options.spool && !options.spool->empty()) return *options.spool;
  const char* const temporary = std::getenv("TMPDIR");
  return temporary && *temporary ? temporary : "/var/tmp";
}

Pipeline::Options Transfer::pipeline_options(const CopyPlan& plan) {
  Pipeline::Options how = plan.pipeline(options_, source_.get());
  how.limit = options_.rate_limit != 0 ? &limit_ : nullptr;
  return how;
}

Result<void> Transfer::run_part(Sink& sink, const Pipeline::Options& how) {
  Pipeline pipeline(source_.get(), sink, parts_, stop_, how);
  RETURN_IF_ERROR(pipeline.run());
  counts_.data += pipeline.counts().data;
  counts_.compressed += pipeline.counts().compressed;
  counts_.passed_through += pipeline.counts().passed_through;
  counts_.found_zero += pipeline.counts().found_zero;
  return {};
}

Result<void> Transfer::run(Sink& sink, const CopyPlan& plan, Qcow2Sink* image) {
  if (!snapshots_) return run_disk(sink, plan);
  if (!image)
    return fail(
        Error::invalid("a destination that cannot be read while it is written cannot have "
                       "snapshots"));
  parts_.set_total(snapshots_->total());
  RETURN_IF_ERROR(snapshots_->begin(*image));
  RETURN_IF_ERROR(run_disk(sink, plan));
  if (cancel_.requested()) return fail(Error::cancelled());
  return snapshots_->run(*image, options_.rate_limit != 0 ? &limit_ : nullptr, parts_, stop_);
}

Result<void> Transfer::run_disk(Sink& sink, const CopyPlan& plan) {
  counts_ = {};
  Pipeline::Options how = pipeline_options(plan);
  if (options_.late) {
    how.end = options_.late->begin;
    RETURN_IF_ERROR(run_part(sink, how));
    RETURN_IF_ERROR(go_on_with_late_source(plan));
    how.begin = how.end;
    how.end = Source::kUnknownSize;
  }
  return run_part(sink, how);
}

Result<void> Transfer::go_on_with_late_source(const CopyPlan& plan) {
  RETURN_IF_ERROR(source_.open_late());
  if (snapshots_) RETURN_IF_ERROR(snapshots_->take_late_source());
  if (!options_.keeps_backing()) return {};
  ASSIGN_OR_RETURN(const std::string base, backing_path(options_, plan.destination));
  return source_.get().keep_backing(base, plan.worker.geometry.cluster_size()).map([](const auto&) {
  });
}

// The tables of earlier states are read back, so they are stored, in a file without a name.
Result<uint64_t> Transfer::dry_run_with_snapshots(const CopyPlan& plan) {
  ASSIGN_OR_RETURN(const auto tables,
                   with_context(OutputFile::create_scratch(spool_folder(options_), "tables"),
                                "the tables of the snapshots are written to a temporary file"));
  DryStorage data(0);
  const Qcow2Sink::Options how{plan.build, options_.image.preallocation != Preallocation::kOff,
                               qcow2::Builder::Gaps::kLeave, false};
  ASSIGN_OR_RETURN(const auto sink, Qcow2Sink::create(*tables, &data, how));
  RETURN_IF_ERROR(run(*sink, plan, sink.get()));
  if (cancel_.requested()) return fail(Error::cancelled());
  RETURN_IF_ERROR(sink->finish());
  return tables->size();
}

Result<uint64_t> Transfer::dry_run(const CopyPlan& plan) {
  if (snapshots_) return dry_run_with_snapshots(plan);
  DryStorage out(0);
  DryStorage data(0);
  const Qcow2Sink::Options how{plan.build, options_.image.preallocation != Preallocation::kOff,
                               qcow2::Builder::Gaps::kLeave, true};
  ASSIGN_OR_RETURN(const auto sink,
                   Qcow2Sink::create(out, plan.build.data_file.empty() ? nullptr : &data, how));
  RETURN_IF_ERROR(run(*sink, plan));
  if (source_.get().is_stream()) RETURN_IF_ERROR(sink->shrink_to(source_.get().size()));
  if (cancel_.requested()) return fail(Error::cancelled());
  RETURN_IF_ERROR(sink->finish());
  return out.size();
}

Result<std::vector<std::byte>> Transfer::first_cluster(const CopyPlan& plan) {
  DryStorage dry(plan.worker.geometry.cluster_size());
  const Qcow2Sink::Options how{plan.build, options_.image.preallocation != Preallocation::kOff,
                               qcow2::Builder::Gaps::kZero, true};
  ASSIGN_OR_RETURN(const auto sink, Qcow2Sink::create(dry, nullptr, how));
  parts_.begin(Phase::kLayout);
  Pipeline pipeline(source_.get(), *sink, parts_, stop_, pipeline_options(plan));
  RETURN_IF_ERROR(pipeline.run());
  RETURN_IF_ERROR(sink->finish());
  parts_.begin(Phase::kCopy);
  return dry.start();
}

}  // namespace vc::copy
