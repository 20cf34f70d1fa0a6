#include "qcow2/storage.h"

#include <fmt/format.h>

namespace qcow2 {

Result<void> read_fully(const Storage& storage, HostOffset at, std::span<std::byte> to) {
  ASSIGN_OR_RETURN(const size_t got, storage.read(at, to));
  if (got != to.size())
    return fail(Error::corrupt(fmt::format("the file ends at {:#x}, inside of {} bytes at {:#x}",
                                           at.value() + got, to.size(), at.value())));
  return {};
}

}  // namespace qcow2
