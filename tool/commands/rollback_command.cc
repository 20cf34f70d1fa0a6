#include "tool/commands/rollback_command.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "libvirt/running_domains.h"
#include "optimize/disk_swap.h"
#include "optimize/shown_names.h"
#include "tool/live/live_run.h"
#include "tool/options/arguments.h"
#include "tool/options/qemu_names.h"
#include "tool/options/servers.h"
#include "tool/text/json_text.h"

namespace vc::tool {

const char* RollbackCommand::description() const {
  return "Restore DISK.bak, which optimize has kept, as DISK. The current DISK becomes\nDISK.bak, "
         "so that nothing is lost: a second rollback undoes the first.";
}

void RollbackCommand::add_options(CLI::App& app) {
  app.add_option("DISK", disk_);
  app.add_option("--backup", suffix_, "suffix of the backup's name; default: .bak")
      ->type_name("SUFFIX")
      ->take_last();
  add_switch(app, "--remove", remove_, "remove the current DISK");
  app.add_option("--connect", connection_,
                 "libvirt of the domain, to undo a run of optimize --live")
      ->type_name("URI")
      ->take_last()
      ->group(kRareOptions);
  app.add_option("--qmp", qmp_socket_, "monitor socket of QEMU, to undo a run with --qmp")
      ->type_name("SOCKET")
      ->take_last()
      ->group(kRareOptions);
  add_switch(app, "--dry-run", dry_run_, "check both files, and print what would be done");
  add_output_option(app, json_, "the result: human (the default) or json");
  metrics().add_option(app);
}

void RollbackCommand::check() const {
  if (disk_.empty()) throw UsageError("DISK is missing");
  if (!connection_.empty() && !qmp_socket_.empty())
    throw UsageError("--qmp and --connect exclude each other");
}

Result<int> RollbackCommand::run(const Console& console) {
  disk_ = plain_path(disk_);
  RETURN_IF_ERROR(refuse_server(disk_, "only files can be rolled back",
                                "name the file that virt-compact optimize has replaced"));
  if (is_stopped_live_run(disk_)) {
    if (dry_run_ || remove_)
      return fail(Error::invalid(
          disk_ +
          ": a run of optimize --live was stopped: undo it first, without --dry-run and "
          "--remove"));
    live::LiveOptions options;
    options.connection = connection_;
    options.qmp_socket = qmp_socket_;
    return complete_live(console, disk_, options, json_, LiveEnd::kBack, metrics());
  }
  metrics().add(disk_);
  ASSIGN_OR_RETURN(const auto remarks, libvirt::check_unused(disk_));
  for (const std::string& remark : remarks) console.warning(remark);
  const optimize::ShownNames shown(disk_);
  auto rolled_back = optimize::roll_back(disk_, suffix_, remove_, dry_run_);
  if (!rolled_back) return fail(shown(rolled_back.error()));
  const optimize::Rollback done{shown(rolled_back->disk), shown(rolled_back->backup)};
  if (json_) {
    nlohmann::ordered_json json;
    json["disk"] = done.disk;
    if (!done.backup.empty()) json["backup"] = done.backup;
    json["dry-run"] = dry_run_;
    using nlohmann::ordered_json;
    RETURN_IF_ERROR(console.print(json_text(json)));
    return kSuccess;
  }
  if (console.manner().quiet) return kSuccess;
  if (dry_run_) {
    RETURN_IF_ERROR(console.print(fmt::format(
        "{} would be the old disk again; the current disk would become {}\nNothing was changed.\n",
        printable(done.disk), done.backup.empty() ? "removed" : printable(done.backup))));
    return kSuccess;
  }
  RETURN_IF_ERROR(console.print(
      done.backup.empty() ? fmt::format("{} is the old disk again; the replaced disk is removed\n",
                                        printable(done.disk))
                          : fmt::format("{} is the old disk again; the replaced disk is now {}\n",
                                        printable(done.disk), printable(done.backup))));
  return kSuccess;
}

}  // namespace vc::tool
