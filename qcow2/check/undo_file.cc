#include "qcow2/check/undo_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "qcow2/byte_order.h"
#include "qcow2/file_storage.h"

namespace qcow2 {

namespace {

constexpr char kMark[] = {'V', 'C', 'U', 'N', 'D', 'O', '1', '\n'};
constexpr uint64_t kHeaderBytes = 16;
constexpr uint64_t kRecordHead = 12;
constexpr uint64_t kSumBytes = 4;

uint32_t sum_of(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(
      ::crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

Result<void> write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail(Error::system(errno, path + ": write"));
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return {};
}

struct Record {
  HostOffset at;
  std::vector<std::byte> before;
  std::vector<std::byte> after;
};

// Where a record begins in the undo file.
struct Place {
  uint64_t in_file;
  uint64_t at;
  uint32_t length;
};

// Nothing: the records end here.
Result<std::optional<Record>> read_record(const Storage& undo, uint64_t position) {
  std::vector<std::byte> bytes(kRecordHead);
  ASSIGN_OR_RETURN(size_t got, undo.read(HostOffset(position), bytes));
  if (got < bytes.size()) return std::optional<Record>{};
  const uint32_t length = load_be32(&bytes[8]);
  if (length == 0 || length > UndoFile::kMostBytes) return std::optional<Record>{};
  bytes.resize(kRecordHead + 2 * uint64_t{length} + kSumBytes);
  ASSIGN_OR_RETURN(got, undo.read(HostOffset(position), bytes));
  if (got < bytes.size()) return std::optional<Record>{};
  const auto summed = std::span(bytes).first(bytes.size() - kSumBytes);
  if (sum_of(summed) != load_be32(&bytes[summed.size()])) return std::optional<Record>{};
  Record record;
  record.at = HostOffset(load_be64(&bytes[0]));
  record.before.assign(bytes.begin() + kRecordHead, bytes.begin() + kRecordHead + length);
  record.after.assign(bytes.begin() + kRecordHead + length, bytes.end() - kSumBytes);
  return std::optional<Record>(std::move(record));
}

// Bytes behind the end of the image count as zeros.
Result<std::vector<std::byte>> read_image(const Storage& image, HostOffset at, uint64_t length) {
  std::vector<std::byte> bytes(length);
  ASSIGN_OR_RETURN(const uint64_t size, image.size());
  if (at.value() < size)
    RETURN_IF_ERROR(image.read(at, std::span(bytes).first(std::min(length, size - at.value()))));
  return bytes;
}

// Marks the bytes of `now`, which stands at `at`, that are as a record has them.
void mark_known(const Record& record, HostOffset at, std::span<const std::byte> now,
                std::vector<bool>& known) {
  const uint64_t begin = std::max(at.value(), record.at.value());
  const uint64_t end = std::min(at.value() + now.size(), record.at.value() + record.before.size());
  for (uint64_t position = begin; position < end; ++position) {
    const std::byte byte = now[position - at.value()];
    const uint64_t in_record = position - record.at.value();
    if (byte == record.before[in_record] || byte == record.after[in_record])
      known[position - at.value()] = true;
  }
}

// Whether each byte of a record's place is as some record has it: it may have been written several
// times, and each of that may have been the last.
Result<bool> is_known(const Storage& undo, const std::vector<Place>& places, const Record& record,
                      std::span<const std::byte> now) {
  if (std::equal(now.begin(), now.end(), record.before.begin()) ||
      std::equal(now.begin(), now.end(), record.after.begin()))
    return true;
  std::vector<bool> known(now.size());
  for (const Place& it : places) {
    if (it.at >= record.at.value() + now.size() || it.at + it.length <= record.at.value()) continue;
    ASSIGN_OR_RETURN(const auto other, read_record(undo, it.in_file));
    if (other) mark_known(*other, record.at, now, known);
  }
  return std::find(known.begin(), known.end(), false) == known.end();
}

}  // namespace

Result<std::unique_ptr<UndoFile>> UndoFile::create(const std::string& path, uint64_t length) {
  std::unique_ptr<UndoFile> file(new UndoFile(path, length));
  file->fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file->fd_ < 0) {
    if (errno == EEXIST)
      return fail(Error::invalid(path +
                                 ": is there already: it may be what takes an earlier repair "
                                 "back; name another undo file"));
    return fail(Error::system(errno, path));
  }
  std::array<std::byte, kHeaderBytes> header{};
  std::memcpy(header.data(), kMark, sizeof kMark);
  store_be64(&header[8], length);
  RETURN_IF_ERROR(write_all(file->fd_, header, path));
  RETURN_IF_ERROR(file->flush());
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    (void)::fsync(fd);
    ::close(fd);
  }
  return file;
}

UndoFile::~UndoFile() {
  if (fd_ >= 0) ::close(fd_);
}

Result<void> UndoFile::add(HostOffset at, std::span<const std::byte> before,
                           std::span<const std::byte> after) {
  while (!before.empty()) {
    const size_t length = std::min<size_t>(before.size(), kMostBytes);
    std::vector<std::byte> record(kRecordHead + 2 * length + kSumBytes);
    store_be64(&record[0], at.value());
    store_be32(&record[8], static_cast<uint32_t>(length));
    std::copy_n(before.begin(), length, record.begin() + kRecordHead);
    std::copy_n(after.begin(), length,
                record.begin() + static_cast<ptrdiff_t>(kRecordHead + length));
    const size_t summed = record.size() - kSumBytes;
    store_be32(&record[summed], sum_of(std::span(record).first(summed)));
    RETURN_IF_ERROR(write_all(fd_, record, path_));
    at += length;
    before = before.subspan(length);
    after = after.subspan(length);
  }
  return {};
}

Result<void> UndoFile::flush() {
  if (::fsync(fd_) != 0) return fail(Error::system(errno, path_ + ": flush to disk"));
  return {};
}

Result<void> apply_undo(const std::string& path, Storage& image) {
  ASSIGN_OR_RETURN(const auto undo, FileStorage::open_readonly(path));
  std::array<std::byte, kHeaderBytes> header{};
  ASSIGN_OR_RETURN(const size_t got, undo->read(HostOffset(0), header));
  if (got < header.size() || std::memcmp(header.data(), kMark, sizeof kMark) != 0)
    return fail(Error::invalid(path + ": is no undo file"));
  const uint64_t length = load_be64(&header[8]);

  std::vector<Place> places;
  for (uint64_t position = kHeaderBytes;;) {
    ASSIGN_OR_RETURN(const auto record, read_record(*undo, position));
    if (!record) break;
    places.push_back({position, record->at.value(), static_cast<uint32_t>(record->before.size())});
    position += kRecordHead + 2 * record->before.size() + kSumBytes;
  }
  for (size_t i = 0; i < places.size(); ++i) {
    ASSIGN_OR_RETURN(const auto record, read_record(*undo, places[i].in_file));
    if (!record) return fail(Error::invalid(path + ": changes while it is read"));
    ASSIGN_OR_RETURN(const auto now, read_image(image, record->at, record->before.size()));
    ASSIGN_OR_RETURN(const bool known, is_known(*undo, places, *record, now));
    if (!known)
      return fail(Error::invalid(fmt::format(
          "{}: at {:#x} is not what the repair of {} has left: it has been written since, or is "
          "another image",
          image.name(), record->at.value(), path)));
  }
  // The last first: what several have written ends as it was before the first.
  for (size_t i = places.size(); i-- > 0;) {
    ASSIGN_OR_RETURN(const auto record, read_record(*undo, places[i].in_file));
    if (!record) return fail(Error::invalid(path + ": changes while it is read"));
    // What lies behind the end of the image as it was goes with its new end.
    if (record->at.value() >= length) continue;
    RETURN_IF_ERROR(image.write(
        record->at,
        std::span(record->before)
            .first(std::min<uint64_t>(record->before.size(), length - record->at.value()))));
  }
  RETURN_IF_ERROR(image.flush());
  ASSIGN_OR_RETURN(const uint64_t size, image.size());
  if (size != length) RETURN_IF_ERROR(image.resize(length));
  return image.flush();
}

}  // namespace qcow2
