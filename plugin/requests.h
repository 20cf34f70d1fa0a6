// The callbacks of nbdkit for the requests of a connection.
#pragma once

#include "plugin/connection.h"

// Set by -D qcow2.read=1 and -D qcow2.extents=1: log the extents of each request.
extern "C" {
extern NBDKIT_DLL_PUBLIC int qcow2_debug_read;
extern NBDKIT_DLL_PUBLIC int qcow2_debug_extents;
}

namespace vc::plugin {

// Sets the callbacks that read, write, zero, trim, flush and map the disk.
void set_requests(nbdkit_plugin& callbacks) noexcept;

}  // namespace vc::plugin
