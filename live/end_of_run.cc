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

std::string way_out(const std::string& disk, const std::string& qmp_socket) {
  const std::string where = (qmp_socket.empty() ? "" : "--qmp " + qmp_socket + " ") + disk;
  return fmt::format(
      "complete the run with virt-compact optimize --resume {}, or undo it with virt-compact "
      "rollback {}",
      where, where);
}

Result<void> check_no_run(const LiveFolder& folder) {
  ASSIGN_OR_RETURN(const auto journal, Journal::open(folder.directory(), folder.journal()));
  if (!journal) return {};
  const bool qmp = journal->record() && journal->record()->qmp;
  return fail(Error::invalid(
      fmt::format("{}: an earlier run was stopped: {}", folder.path_to(folder.journal()),
                  way_out(folder.path_to(folder.disk()), qmp ? "SOCKET" : ""))));
}

Result<void> check_no_run(const std::string& path) {
  // The caller finds out what is wrong with the path.
  const auto real = real_path(path);
  if (!real) return {};
  const auto folder = LiveFolder::open(*real, "");
  return folder ? check_no_run(*folder) : Result<void>();
}

std::string stopped_text(const RunContext& context, const std::string& disk,
                         const std::string& why) {
  return why + ": " + way_out(disk, context.options.qmp_socket);
}

}  // namespace vc::live
