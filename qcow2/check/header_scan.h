// What Header::read takes, and QEMU does not.
#pragma once

#include <functional>

#include "base/result.h"
#include "qcow2/check/finding.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Tells `found` what keeps QEMU from opening an image with this header, although its disk can be
// read: extensions of a wrong length, a bit without what it is about, a damaged LUKS header.
Result<void> scan_header(const Storage& storage, const Header& header,
                         const std::function<void(const Finding&)>& found);

}  // namespace vc::qcow2
