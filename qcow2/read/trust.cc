#include "qcow2/read/trust.h"

#include <fmt/format.h>

namespace vc::qcow2 {

Result<void> check_untrusted_header(const Header& header, const Trust& trust) {
  if (header.crypt_method != CryptMethod::kNone)
    return fail(Error::unsupported("the image is encrypted: its content is unknown"));
  const NamedFiles names(trust.names);
  if (!header.backing_file.empty())
    RETURN_IF_ERROR(with_context(
        names.check_allowed(NamedFiles::Kind::kBacking, header.backing_file), "backing file"));
  if (header.has_data_file())
    RETURN_IF_ERROR(with_context(
        names.check_allowed(NamedFiles::Kind::kDataFile, header.data_file().value_or("")),
        "external data file"));
  return trust.limits ? check_header_limits(header, *trust.limits) : Result<void>{};
}

}  // namespace vc::qcow2
