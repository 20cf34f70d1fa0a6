#include "bench/open_device.h"

#include "bench/file_device.h"
#include "bench/nbd_device.h"
#include "copy/source/open_source.h"

namespace vc::bench {

Result<std::unique_ptr<Device>> open_device(const DeviceName& name, bool write, Stop& stop) {
  ASSIGN_OR_RETURN(const auto target, copy::nbd_target(name.name, name.command));
  if (!target) return FileDevice::open(name, write, stop);
  if (name.format == qcow2::Format::kQcow2)
    return fail(Error::unsupported(
        target->name() +
        ": a QCOW2 file behind NBD is not decoded: serve it with the nbdkit qcow2 plugin"));
  return NbdDevice::open(*target, name.nbd, write, stop);
}

}  // namespace vc::bench
