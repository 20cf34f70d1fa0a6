#include "optimize/early_space.h"

#include <algorithm>
#include <memory>

#include "copy/clone_space.h"
#include "copy/place.h"
#include "copy/source/open_source.h"
#include "copy/source/source_view.h"
#include "guest/inspection.h"
#include "optimize/gain.h"

namespace vc::optimize {

namespace {

// Data to read for the estimate, bytes.
constexpr uint64_t kBudget = 64 << 20;
// Upper limit of metadata, as a part of the disk: 1/16. Tables and refcounts take at most 1/32,
// with clusters of 512 bytes and 64-bit refcounts.
constexpr uint64_t kMetadataPart = 16;
constexpr uint64_t kFixedMetadata = 8 << 20;

bool is_known(const guest::Inspection& found) {
  const auto is_doubtful = [](const guest::Volume& it) {
    return it.verdict == guest::Reading::Verdict::kDoubt;
  };
  return found.doubts.empty() && !found.volumes.empty() &&
         std::none_of(found.volumes.begin(), found.volumes.end(), is_doubtful);
}

// Returns the bytes of data that trimming may free. nullopt if unknown.
Result<std::optional<uint64_t>> trimmable(const copy::CopyOptions& how, const Cancel& cancel) {
  const Stop stop(cancel);
  copy::SourceOptions options;
  options.name = how.source;
  options.format = how.source_format;
  options.trust = how.trust;
  ASSIGN_OR_RETURN(const auto source, copy::open_source(options, stop));
  const auto found = guest::inspect({std::make_shared<copy::SourceView>(*source, 0, cancel)});
  if (cancel.requested()) return fail(Error::cancelled());
  if (!is_known(found)) return std::optional<uint64_t>();
  ASSIGN_OR_RETURN(const uint64_t data, copy::data_within(*source, found.free_on(0), cancel));
  return std::optional<uint64_t>(data);
}

}  // namespace

Result<EarlySpace> find_early_space(const copy::CopyOptions& how, uint64_t size, bool boots,
                                    Progress& progress, const Cancel& cancel) {
  EarlySpace space;
  ASSIGN_OR_RETURN(space.free, copy::free_bytes_for(how.destination));
  space.untrimmed = size + size / kMetadataPart + kFixedMetadata;
  // With a data file, the data goes to another place.
  space.fits = space.untrimmed <= space.free || !how.image.data_file.empty();
  if (space.fits) return space;
  ASSIGN_OR_RETURN(const auto shared, copy::space_with_clones(how, cancel));
  space.fits = shared && *shared <= space.free;
  if (space.fits) {
    space.untrimmed = *shared;
    return space;
  }
  ASSIGN_OR_RETURN(const auto measured, measure_result(how, kBudget, progress, cancel));
  space.untrimmed = measured.file_size;
  space.fits = measured.high <= space.free;
  if (space.fits) return space;
  if (!boots) {
    space.least = measured.low;
    return space;
  }
  ASSIGN_OR_RETURN(const auto trimmed, trimmable(how, cancel));
  if (trimmed) space.least = measured.low - std::min(measured.low, *trimmed);
  return space;
}

}  // namespace vc::optimize
