#include "storage/hidden_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cctype>
#include <cerrno>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "base/retry.h"

namespace vc {

namespace {

// Past QEMU's bytes (100 and 200), and past the end of any image.
constexpr off_t kAliveByte = off_t{1} << 62;

struct flock alive_byte(short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = kAliveByte;
  lock.l_len = 1;
  return lock;  // l_pid must be 0
}

// Returns a hidden name without its numbers.  Truncates `name`, since filesystems limit the length
// of names.
std::string start_of_names(const std::string& name) {
  return fmt::format(".{:.180}.virt-compact-", name);
}

// Returns whether `text` has the form "PID-N".
bool is_numbers(std::string_view text) {
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos || dash == 0 || dash + 1 == text.size()) return false;
  for (size_t i = 0; i < text.size(); ++i)
    if (i != dash && std::isdigit(static_cast<unsigned char>(text[i])) == 0) return false;
  return true;
}

std::vector<std::string> names_that_start_with(const Directory& folder, const std::string& start) {
  std::vector<std::string> names;
  // The stream takes ownership of a new descriptor, and moves its position.
  Descriptor fd(retry(::openat, folder.fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return names;
  const std::unique_ptr<DIR, int (*)(DIR*)> list(::fdopendir(fd.get()), ::closedir);
  if (!list) return names;
  fd.release();
  while (const dirent* const entry = ::readdir(list.get())) {
    const std::string_view name = entry->d_name;
    if (name.starts_with(start) && is_numbers(name.substr(start.size()))) names.emplace_back(name);
  }
  return names;
}

void remove_if_dead(const Directory& folder, const std::string& name) {
  const auto file = folder.open_file(name, O_RDONLY);
  struct stat status {};
  if (!file || retry(::fstat, file->get(), &status) != 0 || !S_ISREG(status.st_mode) ||
      status.st_uid != ::geteuid())
    return;
  // Keeps the lock until the file is removed: a run that has created the file and not locked it yet
  // notices that, and creates another one.
  struct flock lock = alive_byte(F_RDLCK);
  if (retry(::fcntl, file->get(), F_OFD_SETLK, &lock) != 0) return;
  if (folder.holds(name, FileIdentity::of(status))) (void)folder.remove(name);
}

}  // namespace

std::string hidden_name(const std::string& name) {
  static std::atomic<unsigned> number{0};
  return fmt::format("{}{}-{}", start_of_names(name), ::getpid(), number++);
}

bool mark_alive(int fd) {
  struct flock lock = alive_byte(F_WRLCK);
  return retry(::fcntl, fd, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES);
}

Result<HiddenFile> create_hidden(const Directory& folder, const std::string& name) {
  constexpr unsigned kTries = 100;
  for (unsigned i = 0; i < kTries; ++i) {
    HiddenFile made{hidden_name(name), Descriptor()};
    auto file = folder.open_file(made.name, O_CREAT | O_EXCL | O_RDWR, 0666);
    if (!file && file.error().errnum() == EEXIST) continue;
    if (!file) return fail(std::move(file).error());
    made.file = std::move(*file);
    // Another run may have removed the file as a dead run's before it was marked.
    const bool marked = mark_alive(made.file.get());
    if (!folder.holds(made.name, FileIdentity::of(made.file.get()))) continue;
    if (marked) return made;
    (void)folder.remove(made.name);
  }
  return fail(Error::system(EEXIST, folder.path_to(start_of_names(name) + "*")));
}

void remove_dead_files(const Directory& folder, const std::string& name) {
  for (const std::string& it : names_that_start_with(folder, start_of_names(name)))
    remove_if_dead(folder, it);
}

}  // namespace vc
