#include "live/end_of_run.h"

#include <cerrno>
#include <cstdlib>
#include <memory>

namespace vc::live {

Result<std::string> real_path(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
  if (!real) return fail(Error::system(errno, path));
  return std::string(real.get());
}

Result<StoppedFiles> open_stopped(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string disk, real_path(path));
  ASSIGN_OR_RETURN(LiveFolder folder, LiveFolder::open(disk, ""));
  ASSIGN_OR_RETURN(auto journal, Journal::open(folder.directory(), folder.journal()));
  if (!journal)
    return fail(Error::invalid(
        disk + ": has no journal of a run that was stopped, so there is nothing to resume"));
  if (!journal->record()) {
    RETURN_IF_ERROR(journal->remove(folder.directory()));
    return fail(Error::invalid(
        disk + ": the run was stopped before it changed anything; its journal is removed"));
  }
  folder.set_backup(journal->record()->backup);
  return StoppedFiles{std::move(folder), std::move(*journal)};
}

std::string stopped_text(const RunContext& context, const std::string& disk,
                         const std::string& why) {
  const std::string& socket = context.options.qmp_socket;
  const std::string where = (socket.empty() ? "" : "--qmp " + socket + " ") + disk;
  return fmt::format(
      "{}: complete the run with virt-compact optimize --resume {}, or undo it with virt-compact "
      "rollback {}",
      why, where, where);
}

}  // namespace vc::live
