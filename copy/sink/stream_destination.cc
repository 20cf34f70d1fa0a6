#include "copy/sink/stream_destination.h"

#include <algorithm>

#include "base/aligned_buffer.h"

namespace vc::copy {

namespace {

constexpr uint64_t kPiece = 1 << 20;

}  // namespace

Result<std::unique_ptr<StreamDestination>> StreamDestination::qcow2_image(
    int fd, const std::string& name, std::vector<std::byte> start,
    const Qcow2Sink::Options& options, const Stop& stop) {
  std::unique_ptr<StreamDestination> it(new StreamDestination(fd, name, std::move(start), stop));
  ASSIGN_OR_RETURN(it->qcow2_, Qcow2Sink::create(it->storage_, nullptr, options));
  return it;
}

std::unique_ptr<StreamDestination> StreamDestination::raw(int fd, const std::string& name,
                                                          uint64_t size,
                                                          const qcow2::Geometry& geometry,
                                                          const Stop& stop) {
  std::unique_ptr<StreamDestination> it(new StreamDestination(fd, name, {}, stop));
  it->raw_ = std::make_unique<RawSink>(it->storage_, RawSink::Options{size, geometry, false});
  return it;
}

Result<void> StreamDestination::set_size(uint64_t size) {
  if (qcow2_) return qcow2_->shrink_to(size);
  raw_->set_size(size);
  return {};
}

Result<void> StreamDestination::write_out() {
  return sink().finish();
}

Result<std::optional<FileSize>> StreamDestination::measure() {
  ASSIGN_OR_RETURN(const uint64_t length, storage_.size());
  return std::optional(FileSize{length, length});
}

Result<std::unique_ptr<SpooledDestination>> SpooledDestination::create(
    int fd, const std::string& name, const std::string& folder, const Qcow2Sink::Options& options,
    const Stop& stop) {
  ASSIGN_OR_RETURN(auto file,
                   with_context(OutputFile::create_scratch(folder, "virt-compact.spool"), "spool"));
  std::unique_ptr<SpooledDestination> it(new SpooledDestination(fd, name, std::move(file), stop));
  ASSIGN_OR_RETURN(it->sink_, Qcow2Sink::create(*it->file_, nullptr, options));
  return it;
}

Result<void> SpooledDestination::write_out() {
  RETURN_IF_ERROR(sink_->finish());
  ASSIGN_OR_RETURN(const uint64_t length, file_->size());
  StreamStorage stream(fd_, name_, {}, stop_);
  AlignedBuffer buffer(kPiece);
  for (uint64_t at = 0; at < length;) {
    const auto part = buffer.span().first(std::min(kPiece, length - at));
    RETURN_IF_ERROR(read_fully(*file_, HostOffset(at), part));
    RETURN_IF_ERROR(stream.write(HostOffset(at), part));
    at += part.size();
  }
  return {};
}

Result<std::optional<FileSize>> SpooledDestination::measure() {
  ASSIGN_OR_RETURN(const uint64_t length, file_->size());
  return std::optional(FileSize{length, length});
}

}  // namespace vc::copy
