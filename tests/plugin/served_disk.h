// The plugin under test, and small images for it to serve.
#pragma once

#include <string>
#include <vector>

#include "tests/support/nbd_server.h"
#include "tests/support/process.h"

namespace vc::test {

// Path of the plugin: nbdkit loads it by that.
std::string plugin();

// `nbdkit plugin <arguments>` on a socket of its own.
support::NbdServer serve(const std::vector<std::string>& arguments);

// Whether a server with the plugin in it can be told to end, and does.  With a sanitizer's library
// nbdkit itself, with any plugin, may wait at its exit for a lock of the C library for ever.
bool server_ends();

// The same for a server that ends at once, when it has come up or could not: how it ended.  It runs
// in `directory`, or in ours.
support::Outcome try_to_serve(const std::vector<std::string>& arguments,
                              const std::string& directory = "");

// `qemu-img <arguments>` and `qemu-io -f qcow2 -c <each command> image`; they must succeed.
void qemu_img(const std::vector<std::string>& arguments);
void qemu_io(const std::string& image, const std::vector<std::string>& commands);

}  // namespace vc::test
