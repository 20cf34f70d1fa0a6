#include "copy/copy_source.h"

#include "copy/destination_type.h"
#include "copy/source/local_source.h"
#include "copy/source/open_source.h"

namespace vc::copy {

Result<CopySource> CopySource::open(const CopyOptions& options, const Cancel& cancel,
                                    const Stop& stop) {
  SourceOptions how;
  how.nbd.tuning = options.nbd;
  if (options.is_update()) {
    ASSIGN_OR_RETURN(const auto server, nbd_target(options.source, options.source_command));
    if (!server)
      return fail(
          Error::invalid("--bitmap: SRC must be an NBD server that exports the dirty bitmap"));
    how.nbd.bitmap = options.bitmap;
    ASSIGN_OR_RETURN(how.nbd.dirty_unit, update_unit(options));
  }
  how.name = options.source;
  how.command = options.source_command;
  how.format = options.source_format;
  how.snapshot = options.snapshot;
  how.force_share = options.force_share;
  how.trust = options.trust;
  how.salvage = options.salvage;
  CopySource source(options);
  ASSIGN_OR_RETURN(source.source_, open_source(how, stop));
  source.unused_ = options.unused;
  if (options.skip_free) {
    ASSIGN_OR_RETURN(source.free_space_, find_free_space(*source.source_, cancel));
    source.unused_ = source.free_space_->ranges;
  }
  if (source.unused_) source.source_->leave_out(source.unused_);
  return source;
}

Result<void> CopySource::open_late() {
  ASSIGN_OR_RETURN(auto late, options_->late->open());
  if (late->size() != source_->size())
    return fail(Error::invalid(late->name() + ": has another size than " + options_->source));
  source_ = std::move(late);
  if (unused_) source_->leave_out(unused_);
  return {};
}

void CopySource::leave_out(std::shared_ptr<const guest::Ranges> unused) {
  unused_ = std::move(unused);
  source_->leave_out(unused_);
}

}  // namespace vc::copy
