#include "nbd/library_version.h"

#include <libnbd.h>

#include <memory>

namespace vc::nbd {

std::string library_version() {
  const std::unique_ptr<nbd_handle, void (*)(nbd_handle*)> handle(nbd_create(), nbd_close);
  const char* const version = handle ? nbd_get_version(handle.get()) : nullptr;
  return version != nullptr ? version : "unknown";
}

}  // namespace vc::nbd
