// Opens a disk by name, for a load.
#pragma once

#include <memory>

#include "base/result.h"
#include "base/stop.h"
#include "bench/device.h"

namespace vc::bench {

// Opens a file or a server. With `write`, opens it for writing and locks a file as QEMU does.
// `stop` must outlive the device.
Result<std::unique_ptr<Device>> open_device(const DeviceName& name, bool write, Stop& stop);

}  // namespace vc::bench
