#include "live/journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/json_members.h"
#include "base/retry.h"

namespace vc::live {

namespace {

using nlohmann::json;

constexpr const char* kFormat = "virt-compact live 1";
constexpr size_t kUuidLength = 36;
constexpr size_t kLongestName = 255;

Failure not_valid(const std::string& name, const std::string& what) {
  return fail(Error::invalid(fmt::format(
      "{}: is not a journal of virt-compact: {}: remove it if no run of virt-compact optimize "
      "--live was stopped here",
      name, what)));
}

bool all(const std::string& text, std::string_view allowed) {
  return text.find_first_not_of(allowed) == std::string::npos;
}

bool is_uuid(const std::string& text) {
  return text.size() == kUuidLength && all(text, "0123456789abcdef-");
}

bool is_target(const std::string& text) {
  return !text.empty() && text.size() <= 32 && all(text, "abcdefghijklmnopqrstuvwxyz0123456789");
}

bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= kLongestName && text != "." && text != ".." &&
         text.find('/') == std::string::npos && text.find('\0') == std::string::npos;
}

Result<Record> record_of(const json& object, const std::string& name) {
  Record record;
  if (text_member(object, "format") != kFormat) return not_valid(name, "unknown format");
  record.qmp = flag_member(object, "qmp");
  record.uuid = text_member(object, "domain");
  record.target = text_member(object, "target");
  record.backup = text_member(object, "backup");
  record.keep_backup = flag_member(object, "keep-backup");
  record.step = text_member(object, "step");
  record.paused = flag_member(object, "paused");
  const auto inode = number_member(object, "inode");
  const auto user = number_member(object, "user");
  const auto group = number_member(object, "group");
  if (!record.qmp && !is_uuid(record.uuid)) return not_valid(name, "no UUID of a domain");
  if (!record.qmp && !is_target(record.target)) return not_valid(name, "no target of a disk");
  if (!is_name(record.backup)) return not_valid(name, "no name of a backup");
  if (!inode || !user || *user > UINT32_MAX || !group || *group > UINT32_MAX)
    return not_valid(name, "no inode or owner of a disk");
  record.inode = *inode;
  record.user = static_cast<uint32_t>(*user);
  record.group = static_cast<uint32_t>(*group);
  return record;
}

std::string text_of(const Record& record) {
  const json object = {
      {"format", kFormat},       {"qmp", record.qmp},       {"domain", record.uuid},
      {"target", record.target}, {"backup", record.backup}, {"keep-backup", record.keep_backup},
      {"inode", record.inode},   {"user", record.user},     {"group", record.group},
      {"step", record.step},     {"paused", record.paused}};
  return object.dump(-1, ' ', true, json::error_handler_t::replace) + "\n";
}

Result<std::string> read_all(int fd, const std::string& name) {
  std::string text(Journal::kMostBytes + 1, '\0');
  size_t length = 0;
  while (length < text.size()) {
    const ssize_t got =
        retry(::pread, fd, text.data() + length, text.size() - length, static_cast<off_t>(length));
    if (got < 0) return fail(Error::system(errno, name));
    if (got == 0) break;
    length += static_cast<size_t>(got);
  }
  if (length > Journal::kMostBytes) return not_valid(name, "it is too long");
  text.resize(length);
  return text;
}

}  // namespace

Result<std::optional<Record>> parse_journal(const std::string& text, const std::string& name) {
  std::optional<Record> last;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    // An incomplete line: its step did not begin.
    if (end == std::string::npos) break;
    const json object = json::parse(text.begin() + static_cast<std::ptrdiff_t>(at),
                                    text.begin() + static_cast<std::ptrdiff_t>(end), nullptr,
                                    /*allow_exceptions=*/false);
    if (!object.is_object()) {
      if (end + 1 == text.size()) break;
      return not_valid(name, fmt::format("byte {}: not a JSON object", at));
    }
    ASSIGN_OR_RETURN(Record record, record_of(object, name));
    if (last &&
        (record.uuid != last->uuid || record.target != last->target ||
         record.backup != last->backup || record.inode != last->inode || record.qmp != last->qmp))
      return not_valid(name, "its records contradict each other");
    last = std::move(record);
    at = end + 1;
  }
  return last;
}

// Locks the file before anything else is done with it.
Result<Journal> Journal::take(Descriptor file, const Directory& folder, const std::string& name) {
  const std::string path = folder.path_to(name);
  struct stat status {};
  if (retry(::fstat, file.get(), &status) != 0) return fail(Error::system(errno, path));
  if (!S_ISREG(status.st_mode) || status.st_nlink != 1)
    return not_valid(path, "it is not a regular file with one name");
  if (status.st_uid != ::geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return fail(Error::invalid(fmt::format(
        "{}: belongs to user {}, or other users may write it, so it is not trusted: run the "
        "command as the user who started the run, or remove the file",
        path, status.st_uid)));
  if (retry(::flock, file.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    return fail(Error::system(
        EBUSY, path + ": another virt-compact works on this disk: wait until it has ended"));
  return Journal(std::move(file), path);
}

Result<Journal> Journal::create(const Directory& folder, const std::string& name, Record record) {
  ASSIGN_OR_RETURN(Descriptor file,
                   folder.open_file(name, O_RDWR | O_CREAT | O_EXCL | O_APPEND, 0600));
  ASSIGN_OR_RETURN(Journal journal, take(std::move(file), folder, name));
  journal.record_ = std::move(record);
  RETURN_IF_ERROR(journal.append());
  RETURN_IF_ERROR(folder.flush());
  return journal;
}

Result<std::optional<Journal>> Journal::open(const Directory& folder, const std::string& name) {
  if (!folder.status(name)) return std::nullopt;
  ASSIGN_OR_RETURN(Descriptor file, folder.open_file(name, O_RDWR | O_APPEND));
  ASSIGN_OR_RETURN(Journal journal, take(std::move(file), folder, name));
  ASSIGN_OR_RETURN(const std::string text, read_all(journal.file_.get(), journal.name_));
  ASSIGN_OR_RETURN(journal.record_, parse_journal(text, journal.name_));
  // A later record must not become a part of an incomplete line.
  if (!text.empty() && text.back() != '\n' &&
      retry(::ftruncate, journal.file_.get(), static_cast<off_t>(text.rfind('\n') + 1)) != 0)
    return fail(Error::system(errno, journal.name_));
  return journal;
}

Result<void> Journal::append() {
  const std::string line = text_of(*record_);
  for (size_t at = 0; at < line.size();) {
    const ssize_t put = retry(::write, file_.get(), line.data() + at, line.size() - at);
    if (put < 0) return fail(Error::system(errno, name_));
    at += static_cast<size_t>(put);
  }
  if (retry(::fsync, file_.get()) != 0) return fail(Error::system(errno, name_));
  return {};
}

Result<void> Journal::begin(const std::string& step) {
  record_->step = step;
  return append();
}

Result<void> Journal::set_paused(bool paused) {
  record_->paused = paused;
  return append();
}

Result<void> Journal::remove(const Directory& folder) {
  const std::string name = Directory::name_of(name_);
  if (!folder.holds(name, FileIdentity::of(file_.get())))
    return fail(Error::invalid(name_ + ": another process has replaced this file"));
  RETURN_IF_ERROR(folder.remove(name));
  return folder.flush();
}

}  // namespace vc::live
