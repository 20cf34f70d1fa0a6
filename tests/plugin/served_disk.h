// The plugin under test, and small images to serve.
#pragma once

#include <string>
#include <vector>

#include "tests/support/nbd_server.h"
#include "tests/support/process.h"

namespace vc::test {

// Starts `nbdkit plugin <arguments>` on a socket of its own.
support::NbdServer serve(const std::vector<std::string>& arguments);

// Returns true if a server with the plugin ends after SIGTERM. With a sanitizer, nbdkit may wait
// forever at its exit for a lock of the C library, with any plugin.
bool server_ends();

// Runs a server that ends immediately after its start, and returns its result. It runs in
// `directory`, or in the current folder.
support::Outcome try_to_serve(const std::vector<std::string>& arguments,
                              const std::string& directory = "");

// Run `qemu-img <arguments>`, and `qemu-io -f qcow2 -c <each command> image`. They must succeed.
void qemu_img(const std::vector<std::string>& arguments);
void qemu_io(const std::string& image, const std::vector<std::string>& commands);

}  // namespace vc::test
