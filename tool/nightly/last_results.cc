#include "tool/nightly/last_results.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/retry.h"
#include "storage/hidden_file.h"
#include "tool/terminal/console.h"
#include "tool/text/json_text.h"

namespace vc::tool {

using nlohmann::ordered_json;

namespace {

constexpr const char* kFile = "last-results.json";
constexpr const char* kLock = "lock";
constexpr size_t kMostBytes = 16 << 20;
// A disk that does not exist is forgotten after this time, seconds.
constexpr int64_t kForget = 366 * 86400;

Result<void> make_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return fail(Error::system(error.value(), path + ": cannot be created"));
  return {};
}

Result<void> check_folder(const Directory& folder) {
  struct stat status {};
  if (retry(::fstat, folder.fd(), &status) != 0) return fail(Error::system(errno, folder.path()));
  if ((status.st_uid == 0 || status.st_uid == ::geteuid()) &&
      (status.st_mode & (S_IWGRP | S_IWOTH)) == 0)
    return {};
  return fail(Error::invalid(
      fmt::format("{}: other users can change this folder: name another one (state), or remove the "
                  "permission (chmod go-w {})",
                  folder.path(), folder.path())));
}

Result<Descriptor> lock_folder(const Directory& folder) {
  ASSIGN_OR_RETURN(Descriptor lock, folder.open_file(kLock, O_RDWR | O_CREAT, 0600));
  if (retry(::flock, lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK) return fail(Error::system(errno, folder.path_to(kLock)));
  return fail(Error::protocol(
      EBUSY, fmt::format("{}: another virt-compact nightly runs with this state folder: wait for "
                         "its end, or stop it",
                         folder.path())));
}

Result<std::string> read_whole(int fd, const std::string& path) {
  std::string text;
  std::string piece(64 << 10, '\0');
  while (true) {
    const ssize_t got = retry(::read, fd, piece.data(), piece.size());
    if (got < 0) return fail(Error::system(errno, path));
    if (got == 0) return text;
    text.append(piece, 0, static_cast<size_t>(got));
    if (text.size() > kMostBytes) return fail(Error::invalid(path + ": is too long"));
  }
}

ordered_json file_json(const FileState& file) {
  return {{"inode", file.inode}, {"length", file.length}, {"modified", file.modified}};
}

// Throws if a value is missing, or is of another type.
FileState file_of(const ordered_json& json) {
  return {json.at("inode").get<uint64_t>(), json.at("length").get<uint64_t>(),
          json.at("modified").get<int64_t>()};
}

ordered_json result_json(const LastResult& it) {
  ordered_json json;
  json["outcome"] = it.outcome;
  json["text"] = it.text;
  json["time"] = it.time;
  json["success"] = it.success;
  json["before"] = it.before;
  json["after"] = it.after;
  if (it.file) json["file"] = file_json(*it.file);
  json["settings"] = it.settings;
  if (!it.backup.empty())
    json["backup"] = {
        {"path", it.backup}, {"file", file_json(it.backup_file)}, {"time", it.backup_time}};
  return json;
}

// Throws if a value is missing, or is of another type.
LastResult result_of(const ordered_json& json) {
  LastResult it;
  json.at("outcome").get_to(it.outcome);
  json.at("text").get_to(it.text);
  json.at("time").get_to(it.time);
  json.at("success").get_to(it.success);
  json.at("before").get_to(it.before);
  json.at("after").get_to(it.after);
  json.at("settings").get_to(it.settings);
  if (json.contains("file")) it.file = file_of(json["file"]);
  if (json.contains("backup")) {
    const ordered_json& backup = json["backup"];
    backup.at("path").get_to(it.backup);
    it.backup_file = file_of(backup.at("file"));
    backup.at("time").get_to(it.backup_time);
  }
  return it;
}

bool is_forgotten(const std::string& disk, const LastResult& it) {
  struct stat status {};
  return it.time < std::time(nullptr) - kForget && retry(::lstat, disk.c_str(), &status) != 0;
}

}  // namespace

FileState FileState::of(const struct stat& status) {
  return {status.st_ino, static_cast<uint64_t>(status.st_size),
          int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
}

Result<LastResults> LastResults::open(const std::string& folder,
                                      std::vector<std::string>& remarks) {
  RETURN_IF_ERROR(make_folder(folder));
  LastResults results;
  ASSIGN_OR_RETURN(results.folder_, Directory::open(folder));
  RETURN_IF_ERROR(check_folder(*results.folder_));
  ASSIGN_OR_RETURN(results.lock_, lock_folder(*results.folder_));
  remove_dead_files(*results.folder_, kFile);
  RETURN_IF_ERROR(results.read(remarks));
  return results;
}

Result<LastResults> LastResults::peek(const std::string& folder,
                                      std::vector<std::string>& remarks) {
  LastResults results;
  struct stat status {};
  if (retry(::stat, folder.c_str(), &status) != 0 && errno == ENOENT) return results;
  ASSIGN_OR_RETURN(results.folder_, Directory::open(folder));
  RETURN_IF_ERROR(check_folder(*results.folder_));
  RETURN_IF_ERROR(results.read(remarks));
  return results;
}

const LastResult* LastResults::find(const std::string& disk) const {
  const auto found = results_.find(disk);
  return found == results_.end() ? nullptr : &found->second;
}

Result<void> LastResults::set(const std::string& disk, LastResult result) {
  results_[disk] = std::move(result);
  return write();
}

Result<void> LastResults::read(std::vector<std::string>& remarks) {
  if (!folder_->status(kFile)) return {};
  const std::string path = folder_->path_to(kFile);
  ASSIGN_OR_RETURN(const Descriptor file, folder_->open_file(kFile, O_RDONLY));
  ASSIGN_OR_RETURN(const std::string text, read_whole(file.get(), path));
  try {
    const ordered_json json = ordered_json::parse(text);
    for (const auto& [disk, result] : json.at("disks").items()) results_[disk] = result_of(result);
  } catch (const ordered_json::exception& error) {
    results_.clear();
    remarks.push_back(fmt::format("{}: is damaged, so that all disks count as never optimized: {}",
                                  path, error.what()));
  }
  return {};
}

Result<void> LastResults::write() const {
  ordered_json json;
  json["version"] = 1;
  json["disks"] = ordered_json::object();
  for (const auto& [disk, result] : results_)
    if (!is_forgotten(disk, result)) json["disks"][disk] = result_json(result);
  const std::string text = json_text(json);
  const std::string path = folder_->path_to(kFile);
  ASSIGN_OR_RETURN(const HiddenFile hidden, create_hidden(*folder_, kFile));
  if (const int error = write_all(hidden.file.get(), text); error != 0) {
    (void)folder_->remove(hidden.name);
    return fail(Error::system(error, path));
  }
  // Without this, a crash of the host could leave an empty file with the name.
  if (retry(::fsync, hidden.file.get()) != 0) return fail(Error::system(errno, path));
  return folder_->rename(hidden.name, kFile, 0);
}

}  // namespace vc::tool
