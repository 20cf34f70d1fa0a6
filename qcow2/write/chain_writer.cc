#include "qcow2/write/chain_writer.h"

namespace vc::qcow2 {

Result<std::unique_ptr<DiskWriter>> open_writer(const Chain& chain,
                                                const DiskWriter::Options& options) {
  RETURN_IF_ERROR(chain.check_writable());
  RETURN_IF_ERROR(chain.lock_top(ImageClaim::writing()));
  const auto& layers = chain.layers();
  auto writer = DiskWriter::open(chain.storage(), chain.image()->header(), chain.data_file(),
                                 {layers.begin() + 1, layers.end()}, chain.image()->cache(),
                                 options, chain.image()->encryption());
  // An image that cannot be written must not stay locked against other readers.
  if (!writer) (void)chain.lock_top(ImageClaim::reading());
  return writer;
}

}  // namespace vc::qcow2
