#include "tool/commands/rebase_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "qcow2/write/backing_name.h"
#include "tool/options/arguments.h"
#include "tool/options/formats.h"
#include "tool/options/servers.h"
#include "tool/text/json_text.h"

namespace vc::tool {

using nlohmann::ordered_json;

namespace {

constexpr std::array<std::string_view, 5> kCacheModes{"none", "writeback", "writethrough",
                                                      "directsync", "unsafe"};

Result<std::string> parse_cache(const std::string& text) {
  if (std::find(kCacheModes.begin(), kCacheModes.end(), text) == kCacheModes.end())
    return fail(Error::invalid(fmt::format("'{}' is not a cache mode", text)));
  return text;
}

Result<qcow2::Header> read_header(const FileStorage& file) {
  return with_context(qcow2::Header::read(file, qcow2::Header::Purpose::kUnlock), file.name());
}

}  // namespace

const char* RebaseCommand::description() const {
  return "Change the name of the backing file in the header of the overlay FILE, and\nnothing else "
         "(-u), after the file was moved. -b '' removes the name.";
}

void RebaseCommand::add_options(CLI::App& app) {
  app.add_option("FILE", file_);
  add_switch(app, "-u,--unsafe", unsafe_, "change only the name: NEW must have the same content");
  app.add_option_function<std::string>(
         "-b,--new-backing", [this](const std::string& name) { backing_ = name; },
         "new name of the backing file; '' for none")
      ->type_name("NEW")
      ->take_last();
  add_format_option(app, "-F,--backing-format", backing_format_,
                    "format of NEW, qcow2 or raw; default: detected");
  add_format_option(app, "-f,--format", format_, "format of FILE: only qcow2 has backing files");
  add_switch(app, "--force", force_, "do not open NEW");
  add_switch(app, "--dry-run", dry_run_, "change nothing; print what would be changed");
  add_parsed_option(app, "-t,--cache", "CACHE", cache_, parse_cache,
                    "accepted as in qemu-img, and ignored")
      ->group(kRareOptions);
  add_parsed_option(app, "-T,--source-cache", "CACHE", cache_, parse_cache, "the same")
      ->group(kRareOptions);
  trust_.add_options(app, false);
  add_output_option(app, json_, "human (the default) or json");
  names_.add_options(app, trust_.keys());
  metrics().add_option(app);
}

void RebaseCommand::check() const {
  if (file_.empty()) throw UsageError("FILE is missing");
  if (!backing_) throw UsageError("-b is missing: the name of the backing file, or ''");
  if (!unsafe_)
    throw UsageError(
        "a rebase without -u, which moves data, is not supported: qemu-img rebase does this; "
        "'virt-compact copy -B NEW FILE DST' makes an overlay of another file of the chain, "
        "'virt-compact flatten' makes an image without a backing file");
  if (format_ == qcow2::Format::kRaw) throw UsageError("a raw file has no backing file");
  if (backing_->empty() && backing_format_) throw UsageError("-F needs the name of a file in -b");
  if (force_ && !backing_->empty() && !backing_format_)
    throw UsageError("--force: NEW is not opened, so its format must be given (-F)");
}

// Opens NEW with its chain, as a reader of FILE would. Returns its format.
Result<qcow2::Format> RebaseCommand::probe_new(const FileStorage& file) const {
  ASSIGN_OR_RETURN(const std::string path, qcow2::resolve_name(file_, *backing_));
  qcow2::OpenOptions options;
  options.format = backing_format_;
  options.trust = trust_.trust();
  options.metadata_only = true;
  const auto chain = qcow2::Chain::open(path, options);
  if (!chain)
    return fail(
        Error(chain.error())
            .with_context(fmt::format("{}: not changed (--force does not open NEW)", file_)));
  for (const auto& it : chain->files())
    if (it->identity() == file.identity())
      return fail(Error::invalid(fmt::format(
          "{}: not changed: it would be its own backing file, through {}", file_, path)));
  return chain->format();
}

Result<int> RebaseCommand::run(const Console& console) {
  RETURN_IF_ERROR(names_.resolve(file_, format_));
  RETURN_IF_ERROR(refuse_server(file_, "only image files name a backing file",
                                "a server shows the disk, not its image: name the file that it "
                                "serves"));
  metrics().add(file_);
  ASSIGN_OR_RETURN(const auto file, dry_run_ ? FileStorage::open_readonly(file_)
                                             : FileStorage::open_writable(file_));
  ASSIGN_OR_RETURN(const auto header, read_header(*file));
  if (!backing_->empty() && (header.autoclear_features & qcow2::autoclear::kDataFileRaw) != 0)
    return fail(Error::invalid(
        file_ +
        ": its external data file is the raw disk (data_file_raw): it cannot be an overlay"));
  std::string format;
  // Must precede the lock, so that the error says that FILE is in the chain of NEW.
  if (!backing_->empty()) {
    auto found = backing_format_.value_or(qcow2::Format::kRaw);
    if (!force_) {
      ASSIGN_OR_RETURN(found, probe_new(*file));
    }
    format = qcow2::to_string(found);
  }
  RETURN_IF_ERROR(file->lock(ImageClaim::writing(), "shut down the guest that uses it"));
  // Another process may have changed FILE meanwhile.
  ASSIGN_OR_RETURN(const auto now, read_header(*file));
  if (!dry_run_)
    RETURN_IF_ERROR(with_context(backing_->empty()
                                     ? qcow2::drop_backing_name(*file)
                                     : qcow2::set_backing_name(*file, *backing_, format),
                                 file_));
  RETURN_IF_ERROR(report(console, now.backing_file, format));
  return kSuccess;
}

Result<void> RebaseCommand::report(const Console& console, const std::string& old_name,
                                   const std::string& format) const {
  if (json_) {
    ordered_json json;
    json["filename"] = file_;
    json["old-backing-filename"] = old_name;
    json["backing-filename"] = *backing_;
    json["backing-filename-format"] = format;
    json["changed"] = !dry_run_;
    return console.print(json_text(json));
  }
  if (console.manner().quiet) return {};
  const auto name = [](const std::string& it) {
    return it.empty() ? std::string("none") : "'" + printable(it) + "'";
  };
  return console.print(fmt::format("{}: backing file {}{}{}{}\n", printable(file_), name(*backing_),
                                   format.empty() ? "" : " (" + format + ")",
                                   dry_run_ ? ", would be; it is " : ", was ", name(old_name)) +
                       (dry_run_ ? "Nothing was written.\n" : ""));
}

}  // namespace vc::tool
