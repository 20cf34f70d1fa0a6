#include "live/qmp_context.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/caught.h"

namespace vc::live {

namespace {

using Activity = qmp::Machine::Activity;

constexpr unsigned kTriesToResume = 240;
constexpr std::chrono::milliseconds kBetweenResumes{500};

bool is_of_run(const LiveFolder& folder, const std::string& path) {
  for (const std::string& name :
       {folder.disk(), folder.second_overlay(), folder.fresh(), folder.backup()})
    if (folder.is(path, name)) return true;
  return false;
}

}  // namespace

Result<QmpTop> find_top(qmp::Machine& machine, const LiveFolder& folder) {
  ASSIGN_OR_RETURN(const auto devices, machine.devices());
  ASSIGN_OR_RETURN(const auto nodes, machine.nodes());
  for (const qmp::Device& device : devices) {
    if (!is_of_run(folder, device.top())) continue;
    // The guest writes to it, so it is not a read-only node of the same file. A filter has the name
    // of the image below it.
    const auto find = [&](bool image) {
      return std::find_if(nodes.begin(), nodes.end(), [&](const qmp::Node& node) {
        return node.file == device.top() && !node.read_only &&
               (image ? node.driver == "qcow2" : node.driver != "file");
      });
    };
    auto node = find(true);
    if (node == nodes.end()) node = find(false);
    if (node != nodes.end()) return QmpTop{device, *node};
  }
  return fail(Error::invalid(fmt::format("{}: its guest has no disk {} that it writes to",
                                         machine.name(), folder.path_to(folder.disk()))));
}

Result<void> arrange_names(qmp::Machine& machine, const LiveFolder& folder) {
  ASSIGN_OR_RETURN(const QmpTop top, find_top(machine, folder));
  for (const std::string& name : {folder.second_overlay(), folder.fresh(), folder.backup()})
    if (folder.is(top.device.top(), name) && !folder.are_same(name, folder.disk()))
      return folder.link_over(name, folder.disk());
  return {};
}

Result<Seconds> while_stopped(const QmpContext& context, const LiveFolder& folder, Journal& journal,
                              const std::function<Result<void>()>& action) {
  qmp::Machine& machine = *context.machine;
  RETURN_IF_ERROR(journal.set_paused(true));
  RETURN_IF_ERROR(
      context.guardian.arm(folder.path_to(folder.disk()) + std::string(1, '\0') + folder.backup()));
  const auto start = std::chrono::steady_clock::now();
  auto done = machine.stop();
  if (done) done = caught(machine.name(), action);
  // Also after an error, which may have come after the switch to another file.
  auto resumed = arrange_names(machine, folder);
  if (resumed) resumed = machine.resume();
  const Seconds elapsed = std::chrono::steady_clock::now() - start;
  if (resumed) {
    RETURN_IF_ERROR(context.guardian.disarm());
    RETURN_IF_ERROR(journal.set_paused(false));
  }
  RETURN_IF_ERROR(done);
  // The guardian stays armed: it resumes the guest when this process ends.
  RETURN_IF_ERROR(resumed);
  return elapsed;
}

void resume_qemu(const std::string& socket, const std::string& task) {
  const size_t between = task.find('\0');
  if (between == std::string::npos) return;
  for (unsigned i = 0; i < kTriesToResume; ++i) {
    const auto folder = LiveFolder::open(task.substr(0, between), task.substr(between + 1));
    const auto machine = qmp::Machine::open(socket);
    // QEMU has ended.
    if (machine && !*machine) return;
    if (machine && folder) {
      const auto activity = (*machine)->activity();
      if (activity && *activity != Activity::kPausedByUser) return;
      if (activity && arrange_names(**machine, *folder) && (*machine)->resume()) return;
    }
    std::this_thread::sleep_for(kBetweenResumes);
  }
}

}  // namespace vc::live
