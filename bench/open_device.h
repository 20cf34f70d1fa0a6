// Opens the disk that a name means, for a load.
#pragma once

#include <memory>

#include "base/result.h"
#include "base/stop.h"
#include "bench/device.h"

namespace bench {

// Opens a file or a server; for writing if `write`: then a file is locked as QEMU would lock it.
// `stop` must outlive the device.
qcow2::Result<std::unique_ptr<Device>> open_device(const DeviceName& name, bool write,
                                                   copy::Stop& stop);

}  // namespace bench
