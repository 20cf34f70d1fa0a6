#include "copy/source/free_space.h"

#include <utility>
#include <vector>

#include "copy/source/source_view.h"

namespace vc::copy {

Result<FreeSpace> find_free_space(Source& source, const Cancel& cancel) {
  if (source.is_stream())
    return fail(Error::invalid(source.name() +
                               ": a pipe cannot be searched for free space: give the path "
                               "of the image"));
  FreeSpace found;
  found.inspection = guest::inspect({std::make_shared<SourceView>(source, 0, cancel)});
  if (cancel.requested()) return fail(Error::cancelled());
  found.ranges = std::make_shared<const guest::Ranges>(found.inspection.free_on(0));
  ASSIGN_OR_RETURN(found.stored, data_within(source, *found.ranges, cancel));
  return found;
}

}  // namespace vc::copy
