#include "tool/commands/snapshot_command.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <time.h>

#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "base/retry.h"
#include "base/took_effect.h"
#include "copy/copier.h"
#include "storage/file_size.h"
#include "storage/scratch_storage.h"
#include "tool/commands/copy_run.h"
#include "tool/options/arguments.h"
#include "tool/options/formats.h"
#include "tool/options/mistaken_names.h"
#include "tool/options/place_names.h"
#include "tool/options/reflink_option.h"
#include "tool/options/servers.h"
#include "tool/report/copy_report.h"
#include "tool/terminal/progress_display.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"
#include "tool/text/snapshot_list.h"

namespace vc::tool {

namespace {

FileSize measure(const std::string& path) {
  struct stat status {};
  if (retry(::stat, path.c_str(), &status) != 0) return {};
  return FileSize::of(status);
}

qcow2::SnapshotEditor::Time now() {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return {static_cast<uint32_t>(time.tv_sec), static_cast<uint32_t>(time.tv_nsec)};
}

}  // namespace

const char* SnapshotCommand::description() const {
  return "List the internal snapshots of a QCOW2 image, create, delete or apply one, or\nexport "
         "the disk of one to DST.  NAME is an id or a name.  Deleting a snapshot\ndeallocates the "
         "data that only it used, and shrinks the file.";
}

void SnapshotCommand::add_options(CLI::App& app) {
  app.add_option("DISK", disk_);
  app.add_option("[DST]", destination_);
  const auto add_name = [&](const std::string& names, std::string& target, const char* what) {
    app.add_option(names, target, what)->type_name("NAME")->take_last();
  };
  add_switch(app, "-l,--list", list_, "list the snapshots: the default");
  add_name("-c,--create", create_, "create a snapshot of the disk as it is now");
  add_name("-d,--delete", remove_, "delete the snapshot, and shrink the file");
  add_name("-a,--apply", apply_, "restore the snapshot: the current disk is lost");
  add_name("--export", export_, "copy the disk of the snapshot to a fresh image DST");
  add_format_option(app, "-f,--format", format_, "format of DISK: only qcow2 has snapshots");
  add_switch(app, "-U,--force-share", force_share_, "read even if another process writes to DISK");
  add_switch(app, "--force", force_, "replace DST if it exists");
  add_reflink_option(app, reflink_);
  add_switch(app, "--dry-run", dry_run_, "change nothing; print what would be done");
  add_output_option(app, json_, "human (the default) or json, with qemu-img's keys");
  trust_.add_options(app, false);
  trust_.add_key_option(app);
  names_.add_options(app, trust_.keys());
  metrics().add_option(app);
}

void SnapshotCommand::check() const {
  if (disk_.empty()) throw UsageError("DISK is missing");
  const int actions = int{list_} + int{!create_.empty()} + int{!remove_.empty()} +
                      int{!apply_.empty()} + int{!export_.empty()};
  if (actions > 1) throw UsageError("only one of -l, -c, -d, -a and --export can be given");
  if (export_.empty() && !destination_.empty())
    throw UsageError(fmt::format("unexpected argument '{}'", destination_));
  if (!export_.empty() && destination_.empty()) throw UsageError("DST is missing");
  refuse_option_like(destination_, "DST", "virt-compact copy -o", "virt-compact copy -O");
  if (force_ && export_.empty()) throw UsageError("--force needs --export");
  if (reflink_ && export_.empty()) throw UsageError("--reflink needs --export");
  if (dry_run_ && (actions == 0 || list_))
    throw UsageError("--dry-run needs -c, -d, -a or --export: a list changes nothing");
  if (force_share_ && (!create_.empty() || !remove_.empty() || !apply_.empty()))
    throw UsageError("--force-share: an image that another process writes to cannot be changed");
}

Result<void> SnapshotCommand::list(const Console& console) const {
  qcow2::OpenOptions options;
  options.format = format_;
  options.force_share = force_share_;
  options.force_share_option = "--force-share";
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(disk_));
  RETURN_IF_ERROR(qcow2::lock_for_reading(*file, options));
  ASSIGN_OR_RETURN(const auto probed, qcow2::probe_format(*file));
  std::vector<qcow2::Snapshot> snapshots;
  if (format_.value_or(probed) == qcow2::Format::kQcow2) {
    ASSIGN_OR_RETURN(
        const auto header,
        with_context(qcow2::Header::read(*file, qcow2::Header::Purpose::kTell), disk_));
    ASSIGN_OR_RETURN(
        snapshots,
        with_context(qcow2::read_snapshot_table(*file, header, qcow2::SnapshotUse::kList), disk_));
  }
  if (json_) return console.print(snapshot_list_json(snapshots));
  // As in qemu-img, -q does not suppress a requested list.
  return console.print(snapshot_list(snapshots));
}

// A change, or predicted change, of the image.
struct SnapshotCommand::Change {
  const char* action = "";
  std::string id;
  std::string name;
  FileSize before;
  FileSize after;
  // Bytes of clusters in use.
  uint64_t used_before = 0;
  uint64_t used_after = 0;
};

// In a dry run, opens an editor on a copy in memory.
Result<std::unique_ptr<qcow2::SnapshotEditor>> SnapshotCommand::open_editor(
    const qcow2::Chain& chain) const {
  if (!dry_run_) return qcow2::SnapshotEditor::open(chain);
  ASSIGN_OR_RETURN(auto scratch, ScratchStorage::create(chain.storage()));
  return qcow2::SnapshotEditor::open(std::move(scratch));
}

Result<void> SnapshotCommand::apply_to(qcow2::SnapshotEditor& editor, Change& change,
                                       const Console& console) const {
  if (!create_.empty()) {
    for (const qcow2::Snapshot& it : editor.snapshots())
      if (it.name == create_)
        console.warning(
            fmt::format("{}: another snapshot has the name '{}', too, and the id {}: the name "
                        "selects that one; select the new one by its id",
                        disk_, printable(create_), printable(it.id)));
    change.action = "create";
    change.name = create_;
    ASSIGN_OR_RETURN(change.id, editor.create(create_, now()));
    return {};
  }
  const std::string& word = remove_.empty() ? apply_ : remove_;
  const auto* const found = remove_.empty()
                                ? qcow2::find_snapshot(editor.snapshots(), word)
                                : qcow2::find_snapshot_by_name(editor.snapshots(), word);
  change.action = remove_.empty() ? "apply" : "delete";
  if (const auto* const it = found ? found : qcow2::find_snapshot(editor.snapshots(), word)) {
    change.id = it->id;
    change.name = it->name;
  }
  return remove_.empty() ? editor.apply(word) : editor.remove(word);
}

Result<void> SnapshotCommand::tell(const Change& change, const Console& console) const {
  if (json_) {
    nlohmann::ordered_json json;
    json["filename"] = disk_;
    json["action"] = change.action;
    json["dry-run"] = dry_run_;
    json["id"] = change.id;
    json["name"] = change.name;
    json["used-before"] = change.used_before;
    json["used-after"] = change.used_after;
    json["before"] = {{"length", change.before.length}, {"blocks", change.before.blocks}};
    if (!dry_run_)
      json["after"] = {{"length", change.after.length}, {"blocks", change.after.blocks}};
    return console.print(json_text(json));
  }
  const std::string which =
      fmt::format("snapshot '{}' with the id {}", printable(change.name), change.id);
  if (dry_run_) {
    const bool less = change.used_after <= change.used_before;
    const uint64_t amount =
        less ? change.used_before - change.used_after : change.used_after - change.used_before;
    const char* const how = !create_.empty()   ? "would create"
                            : !remove_.empty() ? "would delete"
                                               : "would restore";
    return console.print(fmt::format("{}: {} {}: {} {}\nNothing was written.\n", printable(disk_),
                                     how, printable(which), human_size(amount),
                                     less ? "deallocated" : "more in use"));
  }
  if (!create_.empty()) console.note(fmt::format("{}: {}", disk_, which));
  if (!create_.empty() || change.after.blocks >= change.before.blocks) return {};
  const uint64_t length =
      change.before.length > change.after.length ? change.before.length - change.after.length : 0;
  console.note(fmt::format("{}: deallocated {}, the file is {} shorter", disk_,
                           human_size(change.before.blocks - change.after.blocks),
                           human_size(length)));
  return {};
}

Result<void> SnapshotCommand::change(const Console& console) const {
  qcow2::OpenOptions options;
  options.format = format_;
  options.writable = !dry_run_;
  options.trust = trust_.trust();
  options.metadata_only = true;
  ASSIGN_OR_RETURN(const auto chain, qcow2::Chain::open(disk_, options));
  if (chain.format() != qcow2::Format::kQcow2)
    return fail(Error::invalid(disk_ + ": is a raw file, and a raw file has no snapshots"));
  Change change;
  change.before = measure(disk_);
  ASSIGN_OR_RETURN(const auto editor, open_editor(chain));
  ProgressDisplay progress(console.manner());
  progress.begin(Phase::kSnapshot);
  editor->set_progress([&](uint64_t done, uint64_t total) { progress.update(done, total); });
  change.used_before = editor->used_before();
  RETURN_IF_ERROR(apply_to(*editor, change, console));
  // The change has taken effect; a missing figure is not a failure.
  const auto used = editor->used();
  if (!used && dry_run_) return fail(used.error());
  change.used_after = used.value_or(change.used_before);
  // A dry run does not compact the file: the freed space follows from the counts.
  if (!dry_run_)
    RETURN_IF_ERROR(took_effect(editor->close(), fmt::format("{}: the snapshot is {}", disk_,
                                                             !create_.empty()   ? "there"
                                                             : !remove_.empty() ? "removed"
                                                                                : "applied")));
  progress.finish();
  change.after = measure(disk_);
  if (console.manner().quiet && !json_) return {};
  return tell(change, console);
}

Result<void> SnapshotCommand::export_disk(const Console& console) const {
  if (const auto contradiction = name_contradiction(destination_, qcow2::Format::kQcow2))
    console.warning(*contradiction);
  copy::CopyOptions options;
  options.source = disk_;
  options.source_format = format_;
  options.snapshot = export_;
  options.destination = destination_;
  options.overwrite = force_;
  options.trust = trust_.trust();
  options.force_share = force_share_;
  options.reflink = reflink_.value_or(options.reflink);
  options.dry_run = dry_run_;
  ASSIGN_OR_RETURN(const auto summary, run_copy(options, console));
  if (json_) return console.print(copy_report_json(options, summary));
  if (console.manner().quiet) return {};
  return console.print(copy_report(options, summary, console.palette()));
}

Result<int> SnapshotCommand::run(const Console& console) {
  RETURN_IF_ERROR(names_.resolve(disk_, format_));
  RETURN_IF_ERROR(refuse_server(disk_, "only image files have internal snapshots",
                                "the nbdkit qcow2 plugin serves each snapshot as an export, which "
                                "virt-compact copy reads"));
  destination_ = plain_path(destination_);
  const bool changes = !create_.empty() || !remove_.empty() || !apply_.empty();
  if (!export_.empty())
    metrics().add_new(disk_, destination_);
  else
    metrics().add(disk_);
  if (!changes && export_.empty()) metrics().unchanged();
  RETURN_IF_ERROR(!export_.empty() ? export_disk(console)
                  : changes        ? change(console)
                                   : list(console));
  return kSuccess;
}

}  // namespace vc::tool
