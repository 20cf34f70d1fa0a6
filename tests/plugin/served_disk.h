// The plugin under test, and small images for it to serve.
#pragma once

#include <string>
#include <vector>

#include "tests/support/nbd_server.h"
#include "tests/support/process.h"

namespace test {

// Path of the plugin: nbdkit loads it by that.
std::string plugin();

// `nbdkit plugin <arguments>` on a socket of its own.
support::NbdServer serve(const std::vector<std::string>& arguments);

// The same for a server that ends at once, when it has come up or could not: how it ended.  It runs
// in `directory`, or in ours.
support::Outcome try_to_serve(const std::vector<std::string>& arguments,
                              const std::string& directory = "");

// `qemu-img <arguments>` and `qemu-io -f qcow2 -c <each command> image`; they must succeed.
void qemu_img(const std::vector<std::string>& arguments);
void qemu_io(const std::string& image, const std::vector<std::string>& commands);

}  // namespace test
