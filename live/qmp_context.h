// The disk of a guest whose QEMU has no libvirt, and a pause in which its files change their names.
//
// The owner of the guest starts it with the name DISK. So DISK is always a name of the file to
// which the guest writes, or, while the guest is paused, of a file with the same content.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "live/context.h"
#include "live/folder.h"
#include "live/journal.h"
#include "qmp/machine.h"

namespace vc::live {

struct QmpContext : RunContext {
  qmp::Machine* machine = nullptr;  // nullptr: QEMU does not run

  std::string name() const { return machine ? machine->name() : "QEMU"; }
};

// A disk of the guest, and the node of the image to which the guest writes.
struct QmpTop {
  qmp::Device device;
  qmp::Node node;
};

// Finds the disk whose uppermost file is one of `folder`.
Result<QmpTop> find_top(qmp::Machine& machine, const LiveFolder& folder);

// Makes DISK a name of the file to which the guest writes.
Result<void> arrange_names(qmp::Machine& machine, const LiveFolder& folder);

// Pauses the guest, calls `action`, arranges the names, and resumes the guest. Returns the duration
// of the pause.
Result<Seconds> while_stopped(const QmpContext& context, const LiveFolder& folder, Journal& journal,
                              const std::function<Result<void>()>& action);

// Resumes the guest of `task`, which while_stopped() gives to the guardian, after it has arranged
// the names.
void resume_qemu(const std::string& socket, const std::string& task);

}  // namespace vc::live
