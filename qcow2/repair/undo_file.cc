#include "qcow2/repair/undo_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/byte_order.h"
#include "base/retry.h"
#include "storage/file_storage.h"

namespace vc::qcow2 {

namespace {

constexpr char kMark[] = {'V', 'C', 'U', 'N', 'D', 'O', '3', '\n'};
constexpr char kOldMark[] = {'V', 'C', 'U', 'N', 'D', 'O', '2', '\n'};
// Flags in a record's length field.
constexpr uint32_t kZeroed = uint32_t{1} << 31;
constexpr uint32_t kCut = uint32_t{1} << 30;
constexpr uint64_t kHeaderBytes = 24;
constexpr uint64_t kHeaderSummed = 20;
constexpr uint64_t kRecordHead = 12;
constexpr uint64_t kSumBytes = 4;

uint32_t sum_of(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(
      ::crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

Result<void> write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t put = retry(::write, fd, bytes.data(), bytes.size());
    if (put < 0) return fail(Error::system(errno, path + ": write"));
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return {};
}

struct Record {
  HostOffset at;
  std::vector<std::byte> before;
  std::vector<std::byte> after;
  bool cut = false;  // the image is truncated at `at`; there are no bytes
};

// The position of a record in the undo file.
struct RecordPlace {
  uint64_t in_file;
  uint64_t at;
  uint32_t length;
  bool cut;
};

enum class Next {
  kRecord,
  kEnd,   // after all records
  kTorn,  // no record, or a partial one
};

struct Entry {
  Next next;
  Record record;          // kRecord
  uint64_t records = 0;   // kEnd: number of records
  uint64_t position = 0;  // past the entry
};

Result<Entry> read_entry(const Storage& undo, uint64_t position) {
  Entry torn{Next::kTorn, {}, 0, position};
  std::vector<std::byte> bytes(kRecordHead);
  ASSIGN_OR_RETURN(size_t got, undo.read(HostOffset(position), bytes));
  if (got < bytes.size()) return torn;
  const uint32_t flags = load_be32(&bytes[8]) & (kZeroed | kCut);
  const uint32_t length = load_be32(&bytes[8]) & ~(kZeroed | kCut);
  if (length > UndoFile::kMostBytes) return torn;
  bytes.resize(kRecordHead + uint64_t{length} * (flags == kZeroed ? 1 : 2) + kSumBytes);
  ASSIGN_OR_RETURN(got, undo.read(HostOffset(position), bytes));
  if (got < bytes.size()) return torn;
  const auto summed = std::span(bytes).first(bytes.size() - kSumBytes);
  if (sum_of(summed) != load_be32(&bytes[summed.size()])) return torn;
  const uint64_t head = load_be64(&bytes[0]);
  if (length == 0 && flags == 0) return Entry{Next::kEnd, {}, head, position + bytes.size()};
  Record record;
  record.at = HostOffset(head);
  record.before.assign(bytes.begin() + kRecordHead, bytes.begin() + kRecordHead + length);
  record.after.assign(bytes.begin() + kRecordHead + length, bytes.end() - kSumBytes);
  if (flags == kZeroed) record.after.assign(length, std::byte{0});
  record.cut = (flags & kCut) != 0;
  return Entry{Next::kRecord, std::move(record), 0, position + bytes.size()};
}

Result<Record> read_record(const Storage& undo, uint64_t position) {
  ASSIGN_OR_RETURN(auto entry, read_entry(undo, position));
  if (entry.next != Next::kRecord)
    return fail(Error::invalid(undo.name() + ": changes while it is read"));
  return std::move(entry.record);
}

// Returns whether the undo file ends with the end mark of a complete repair.
Result<bool> has_end(const Storage& undo) {
  constexpr uint64_t kEndBytes = kRecordHead + kSumBytes;
  ASSIGN_OR_RETURN(const uint64_t size, undo.size());
  if (size < kHeaderBytes + kEndBytes) return false;
  ASSIGN_OR_RETURN(const auto last, read_entry(undo, size - kEndBytes));
  return last.next == Next::kEnd;
}

// Returns the positions of the records.
Result<std::vector<RecordPlace>> find_records(const Storage& undo) {
  ASSIGN_OR_RETURN(const bool whole, has_end(undo));
  std::vector<RecordPlace> places;
  uint64_t position = kHeaderBytes;
  while (true) {
    ASSIGN_OR_RETURN(const auto entry, read_entry(undo, position));
    if (entry.next != Next::kRecord) {
      if (whole && (entry.next == Next::kTorn || entry.records != places.size()))
        return fail(Error::corrupt(fmt::format(
            "{}: is damaged at {:#x}: the rest of it cannot be trusted", undo.name(), position)));
      return places;
    }
    const Record& record = entry.record;
    if (record.at.value() > static_cast<uint64_t>(INT64_MAX) - record.before.size())
      return fail(Error::corrupt(fmt::format("{}: is damaged at {:#x}", undo.name(), position)));
    places.push_back(
        {position, record.at.value(), static_cast<uint32_t>(record.before.size()), record.cut});
    position = entry.position;
  }
}

// Bytes past the end of the image read as zeros.
Result<std::vector<std::byte>> read_image(const Storage& image, HostOffset at, uint64_t length) {
  std::vector<std::byte> bytes(length);
  ASSIGN_OR_RETURN(const uint64_t size, image.size());
  if (at.value() < size)
    RETURN_IF_ERROR(image.read(at, std::span(bytes).first(std::min(length, size - at.value()))));
  return bytes;
}

// Marks the bytes of `now`, which starts at `at`, that match a record.
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

// Returns whether each byte in a record's range matches some record: records may overlap, and any
// of them may have been the last one written.
Result<bool> is_known(const Storage& undo, const std::vector<RecordPlace>& places,
                      const Record& record, std::span<const std::byte> now) {
  if (std::equal(now.begin(), now.end(), record.before.begin()) ||
      std::equal(now.begin(), now.end(), record.after.begin()))
    return true;
  std::vector<bool> known(now.size());
  for (const RecordPlace& it : places) {
    if (it.at >= record.at.value() + now.size() || it.at + it.length <= record.at.value()) continue;
    ASSIGN_OR_RETURN(const auto other, read_record(undo, it.in_file));
    mark_known(other, record.at, now, known);
  }
  return std::find(known.begin(), known.end(), false) == known.end();
}

// Returns the checksum of the image's start as it is, or as it would be after the undo.
Result<uint32_t> sum_of_sample(const Storage& image, uint64_t length, const Storage& undo,
                               const std::vector<RecordPlace>& places) {
  ASSIGN_OR_RETURN(auto sample,
                   read_image(image, HostOffset(0), std::min(length, UndoFile::kSampleBytes)));
  for (size_t i = places.size(); i-- > 0;) {
    if (places[i].at >= sample.size()) continue;
    ASSIGN_OR_RETURN(const auto record, read_record(undo, places[i].in_file));
    std::copy_n(record.before.begin(),
                std::min<uint64_t>(record.before.size(), sample.size() - places[i].at),
                sample.begin() + static_cast<ptrdiff_t>(places[i].at));
  }
  return sum_of(sample);
}

// Returns an error unless the image is as the repair left it.
Result<void> check_image(const Storage& image, uint64_t length, uint32_t sample,
                         const Storage& undo, const std::vector<RecordPlace>& places) {
  const auto other = [&](const std::string& what) {
    return fail(
        Error::invalid(fmt::format("{}: {} is not as the repair of {} has left it: it was written "
                                   "since then, or it is another image",
                                   image.name(), what, undo.name())));
  };
  ASSIGN_OR_RETURN(const uint64_t size, image.size());
  uint64_t longest = length, shortest = length;
  for (const RecordPlace& it : places) {
    longest = std::max(longest, it.at + it.length);
    if (it.cut) shortest = std::min(shortest, it.at);
  }
  if (size < shortest || size > longest) return other(fmt::format("its length, {} bytes,", size));
  ASSIGN_OR_RETURN(const uint32_t sum, sum_of_sample(image, length, undo, places));
  if (sum != sample) return other("its start");
  for (const RecordPlace& it : places) {
    ASSIGN_OR_RETURN(const auto record, read_record(undo, it.in_file));
    ASSIGN_OR_RETURN(const auto now, read_image(image, record.at, record.before.size()));
    ASSIGN_OR_RETURN(const bool known, is_known(undo, places, record, now));
    if (!known) return other(fmt::format("at {:#x} it", record.at.value()));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<UndoFile>> UndoFile::create(const std::string& path, const Storage& image) {
  ASSIGN_OR_RETURN(Directory folder, Directory::open(Directory::parent_of(path)));
  const std::string name = Directory::name_of(path);
  auto opened = folder.open_file(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (!opened) {
    if (opened.error().errnum() == EEXIST)
      return fail(Error::invalid(
          path + ": exists already: it may undo an earlier repair: name another undo file"));
    return fail(std::move(opened).error());
  }
  std::unique_ptr<UndoFile> file(new UndoFile(path, std::move(folder), std::move(*opened)));
  if (auto begun = file->begin(image); !begun) {
    file->remove();
    return fail(std::move(begun).error());
  }
  return file;
}

Result<void> UndoFile::begin(const Storage& image) {
  ASSIGN_OR_RETURN(const uint64_t length, image.size());
  ASSIGN_OR_RETURN(const auto sample,
                   read_image(image, HostOffset(0), std::min(length, kSampleBytes)));
  std::array<std::byte, kHeaderBytes> header{};
  std::memcpy(header.data(), kMark, sizeof kMark);
  store_be64(&header[8], length);
  store_be32(&header[16], sum_of(sample));
  store_be32(&header[kHeaderSummed], sum_of(std::span(header).first(kHeaderSummed)));
  RETURN_IF_ERROR(write_all(fd_.get(), header, path_));
  length_ = header.size();
  RETURN_IF_ERROR(flush());
  return folder_.flush();
}

void UndoFile::remove() const noexcept {
  const std::string name = Directory::name_of(path_);
  if (folder_.holds(name, FileIdentity::of(fd_.get()))) (void)folder_.remove(name);
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
    RETURN_IF_ERROR(append(std::move(record)));
    at += length;
    before = before.subspan(length);
    after = after.subspan(length);
  }
  return {};
}

Result<void> UndoFile::append(std::vector<std::byte> record) {
  if (auto written = write_all(fd_.get(), record, path_); !written) {
    // Data after a partial record would not be read.
    if (::ftruncate(fd_.get(), static_cast<off_t>(length_)) != 0 ||
        ::lseek(fd_.get(), static_cast<off_t>(length_), SEEK_SET) < 0)
      return fail(Error::system(errno, path_));
    return written;
  }
  length_ += record.size();
  ++records_;
  return {};
}

Result<void> UndoFile::add_zeroed(HostOffset at, std::span<const std::byte> before) {
  const uint64_t length = length_, records = records_;
  while (!before.empty()) {
    const size_t part = std::min<size_t>(before.size(), kMostBytes);
    std::vector<std::byte> record(kRecordHead + part + kSumBytes);
    store_be64(&record[0], at.value());
    store_be32(&record[8], static_cast<uint32_t>(part) | kZeroed);
    std::copy_n(before.begin(), part, record.begin() + kRecordHead);
    const size_t summed = record.size() - kSumBytes;
    store_be32(&record[summed], sum_of(std::span(record).first(summed)));
    if (auto added = append(std::move(record)); !added) {
      if (::ftruncate(fd_.get(), static_cast<off_t>(length)) == 0 &&
          ::lseek(fd_.get(), static_cast<off_t>(length), SEEK_SET) >= 0) {
        length_ = length;
        records_ = records;
      }
      return added;
    }
    at += part;
    before = before.subspan(part);
  }
  return {};
}

Result<void> UndoFile::add_cut(uint64_t size) {
  std::vector<std::byte> record(kRecordHead + kSumBytes);
  store_be64(&record[0], size);
  store_be32(&record[8], kCut);
  store_be32(&record[kRecordHead], sum_of(std::span(record).first(kRecordHead)));
  return append(std::move(record));
}

Result<void> UndoFile::finish() {
  std::array<std::byte, kRecordHead + kSumBytes> end{};
  store_be64(&end[0], records_);
  store_be32(&end[kRecordHead], sum_of(std::span(end).first(kRecordHead)));
  return write_all(fd_.get(), end, path_);
}

Result<void> UndoFile::flush() {
  if (const int errnum = sync_.run(::fsync, fd_.get()))
    return fail(Error::system(errnum, path_ + ": flush to disk"));
  return {};
}

Result<void> apply_undo(const std::string& path, Storage& image) {
  ASSIGN_OR_RETURN(const auto undo, FileStorage::open_readonly(path));
  std::array<std::byte, kHeaderBytes> header{};
  ASSIGN_OR_RETURN(const size_t got, undo->read(HostOffset(0), header));
  if (got < header.size() || (std::memcmp(header.data(), kMark, sizeof kMark) != 0 &&
                              std::memcmp(header.data(), kOldMark, sizeof kOldMark) != 0))
    return fail(Error::invalid(path + ": is not an undo file"));
  if (sum_of(std::span(header).first(kHeaderSummed)) != load_be32(&header[kHeaderSummed]))
    return fail(Error::corrupt(path + ": is damaged at its start"));
  const uint64_t length = load_be64(&header[8]);
  ASSIGN_OR_RETURN(const auto places, find_records(*undo));
  // Without records nothing was written to the image.
  if (places.empty()) return fail(Error::invalid(path + ": contains nothing to undo"));
  RETURN_IF_ERROR(check_image(image, length, load_be32(&header[16]), *undo, places));

  // Restores the last record first, so that overlapping records end with the oldest data.
  for (size_t i = places.size(); i-- > 0;) {
    // Data past the old end of the image is removed by the truncation.
    if (places[i].at >= length) continue;
    ASSIGN_OR_RETURN(const auto record, read_record(*undo, places[i].in_file));
    RETURN_IF_ERROR(image.write(
        record.at,
        std::span(record.before)
            .first(std::min<uint64_t>(record.before.size(), length - record.at.value()))));
  }
  RETURN_IF_ERROR(image.flush());
  ASSIGN_OR_RETURN(const uint64_t size, image.size());
  if (size != length) RETURN_IF_ERROR(image.resize(length));
  return image.flush();
}

}  // namespace vc::qcow2
