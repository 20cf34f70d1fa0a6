#include "copy/sink/file_destination.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "base/retry.h"
#include "qcow2/format/header.h"
#include "qcow2/read/chain.h"
#include "storage/directory.h"

namespace vc::copy {

namespace {

bool is_block_device(const std::string& path) {
  struct stat status {};
  return retry(::stat, path.c_str(), &status) == 0 && S_ISBLK(status.st_mode);
}

}  // namespace

Result<OutputTarget> OutputTarget::open(const std::string& path, bool overwrite) {
  OutputTarget target;
  if (is_block_device(path)) {
    ASSIGN_OR_RETURN(target.device_, FileStorage::open_exclusive_device(path));
    RETURN_IF_ERROR(target.device_->lock(ImageClaim::writing(), "shut it down first"));
  } else {
    ASSIGN_OR_RETURN(target.file_, OutputFile::create(path, overwrite));
  }
  return target;
}

Storage& OutputTarget::storage() const {
  if (file_) return *file_;
  return *device_;
}

Result<void> OutputTarget::preallocate(Preallocation how, uint64_t length) {
  // A device has all of its space already.
  if (!file_ || how == Preallocation::kOff || how == Preallocation::kMetadata) return {};
  return file_->preallocate(length, how == Preallocation::kFull);
}

Result<void> OutputTarget::flush() {
  return storage().flush();
}

Result<void> OutputTarget::complete() {
  return file_ ? file_->commit() : Result<void>{};
}

Result<Descriptor> OutputTarget::share() const {
  return file_ ? file_->share() : Descriptor();
}

Result<std::optional<FileSize>> OutputTarget::measure() const {
  if (!file_) return std::optional<FileSize>{};
  ASSIGN_OR_RETURN(const auto size, file_->measure());
  return std::optional(size);
}

namespace {

// Returns the name of the data file of the image at `path`. nullopt if it is no image or has none.
std::optional<std::string> data_file_of(const std::string& path) {
  const auto file = FileStorage::open_readonly(path);
  if (!file) return std::nullopt;
  const auto header = qcow2::Header::read(**file, qcow2::Header::Purpose::kTell);
  const auto name = header ? header->data_file() : std::nullopt;
  if (!name) return std::nullopt;
  const auto resolved = qcow2::resolve_name(path, *name);
  return resolved ? std::optional(*resolved) : std::nullopt;
}

// Returns an error if the data file `where` for the image `path` is the image itself or an existing
// file. Allows a device, or the data file of the image that is replaced.
Result<void> check_data_file(const std::string& where, const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path data(where);
  const fs::path image(path);
  const auto folder = [&](const fs::path& file) {
    return fs::weakly_canonical(file.has_parent_path() ? file.parent_path() : ".", ignored);
  };
  struct stat there {};
  struct stat status {};
  const bool exists = retry(::stat, where.c_str(), &there) == 0;
  if ((data.filename() == image.filename() && folder(data) == folder(image)) ||
      (exists && retry(::stat, path.c_str(), &status) == 0 &&
       FileIdentity::of(there) == FileIdentity::of(status)))
    return fail(Error::invalid(where + ": data_file is the image itself"));
  if (!exists || !S_ISREG(there.st_mode)) return {};
  const auto own = data_file_of(path);
  if (own && retry(::stat, own->c_str(), &status) == 0 &&
      FileIdentity::of(there) == FileIdentity::of(status))
    return {};
  return fail(Error::invalid(
      where + ": data file: exists already, and does not belong to the image that is replaced"));
}

}  // namespace

Result<std::unique_ptr<Qcow2Destination>> Qcow2Destination::create(const std::string& path,
                                                                   bool overwrite,
                                                                   const qcow2::BuildOptions& build,
                                                                   Preallocation preallocation) {
  ASSIGN_OR_RETURN(OutputTarget target, OutputTarget::open(path, overwrite));
  std::unique_ptr<Qcow2Destination> it(
      new Qcow2Destination(std::move(target), build, preallocation));
  Storage* data = nullptr;
  if (!build.data_file.empty()) {
    ASSIGN_OR_RETURN(const std::string where, qcow2::resolve_name(path, build.data_file));
    RETURN_IF_ERROR(check_data_file(where, path));
    ASSIGN_OR_RETURN(it->data_, with_context(OutputTarget::open(where, overwrite), "data file"));
    data = &it->data_->storage();
  }
  const bool preallocate = preallocation != Preallocation::kOff;
  ASSIGN_OR_RETURN(it->sink_,
                   Qcow2Sink::create(it->target_.storage(), data,
                                     {build, preallocate,
                                      it->target_.file() ? qcow2::Builder::Gaps::kLeave
                                                         : qcow2::Builder::Gaps::kUnknown}));
  return it;
}

Result<void> Qcow2Destination::set_size(uint64_t size) {
  build_.size = size;
  return sink_->shrink_to(size);
}

Result<void> Qcow2Destination::write_out() {
  RETURN_IF_ERROR(sink_->finish());
  if (data_) {
    // The length equals the disk size, wherever the last data is.
    if (data_->file()) RETURN_IF_ERROR(data_->storage().resize(build_.rounded_size()));
    RETURN_IF_ERROR(data_->preallocate(preallocation_, build_.rounded_size()));
    RETURN_IF_ERROR(data_->flush());
  } else if (target_.file()) {
    ASSIGN_OR_RETURN(const uint64_t length, target_.storage().size());
    RETURN_IF_ERROR(target_.preallocate(preallocation_, length));
  }
  return target_.flush();
}

std::optional<std::string> Qcow2Destination::path_to_read() const {
  // The image names other files relative to its final name, which it does not have yet.
  if (!target_.file() || data_ || !build_.backing_file.empty()) return std::nullopt;
  return target_.file()->path_to_read();
}

Result<void> Qcow2Destination::complete() {
  if (!data_) return target_.complete();
  auto completed = data_->complete();
  if (completed) completed = target_.complete();
  // If the image failed, removes the data file: data without its image is useless. An image keeps
  // its data.
  const bool has_image = !target_.file() || target_.file()->has_name();
  if (!completed && !has_image && data_->file()) data_->file()->take_back();
  return completed;
}

Result<std::optional<FileSize>> Qcow2Destination::measure() {
  ASSIGN_OR_RETURN(auto size, target_.measure());
  if (!size || !data_) return size;
  ASSIGN_OR_RETURN(const auto data, data_->measure());
  if (data) *size += *data;
  return size;
}

Result<std::unique_ptr<RawDestination>> RawDestination::create(const std::string& path,
                                                               bool overwrite, uint64_t size,
                                                               const qcow2::Geometry& geometry,
                                                               Preallocation preallocation,
                                                               bool zeroed) {
  ASSIGN_OR_RETURN(OutputTarget target, OutputTarget::open(path, overwrite));
  if (target.device()) {
    ASSIGN_OR_RETURN(const uint64_t space, target.device()->size());
    if (space < size)
      return fail(Error::invalid(
          fmt::format("{}: the device has {} bytes, too few for a disk of {}", path, space, size)));
  }
  const bool fresh = target.file() != nullptr;
  std::unique_ptr<RawDestination> it(new RawDestination(std::move(target), size, preallocation));
  it->sink_ = std::make_unique<RawSink>(it->target_.storage(),
                                        RawSink::Options{size, geometry, fresh || zeroed});
  return it;
}

Result<void> RawDestination::set_size(uint64_t size) {
  size_ = size;
  sink_->set_size(size);
  return {};
}

std::optional<std::string> RawDestination::path_to_read() const {
  if (!target_.file()) return std::nullopt;
  return target_.file()->path_to_read();
}

Result<void> RawDestination::write_out() {
  RETURN_IF_ERROR(sink_->finish());
  if (target_.file()) RETURN_IF_ERROR(target_.storage().resize(size_));
  RETURN_IF_ERROR(target_.preallocate(preallocation_, size_));
  return target_.flush();
}

}  // namespace vc::copy
