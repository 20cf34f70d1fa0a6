#include "qcow2/relocate/unknown_autoclear.h"

#include "qcow2/format/header_fields.h"

namespace vc::qcow2 {

Result<void> clear_unknown_autoclear(Storage& storage, const Header& header) {
  const uint64_t kept = header.autoclear_features & (autoclear::kBitmaps | autoclear::kDataFileRaw);
  if (header.version < 3 || kept == header.autoclear_features) return {};
  RETURN_IF_ERROR(write_feature_fields(storage, header.incompatible_features,
                                       header.compatible_features, kept));
  return storage.flush();
}

}  // namespace vc::qcow2
