#include "bench/file_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/aligned_buffer.h"
#include "bench/load_threads.h"
#include "qcow2/write/chain_writer.h"

namespace vc::bench {

namespace {

// hole_share() draws at most kMostChecked requests of a load, and checks about kSamples of them.
constexpr uint64_t kSamples = 1000;
constexpr uint64_t kMostChecked = 1000000;

uint64_t nanoseconds(Schedule::Clock::duration time) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(time).count());
}

}  // namespace

Result<std::unique_ptr<Device>> FileDevice::open(const DeviceName& name, bool write, Stop& stop) {
  std::unique_ptr<FileDevice> device(new FileDevice(name.name, stop));
  qcow2::OpenOptions options;
  options.format = name.format;
  options.force_share = name.force_share;
  options.direct = name.direct;
  options.trust = name.trust;
  if (!write) options.force_share_option = "--force-share";
  ASSIGN_OR_RETURN(device->chain_, qcow2::Chain::open(name.name, options));
  device->format_ = device->chain_->format();
  device->size_ = device->chain_->disk().size();
  for (const auto& file : device->chain_->files())
    if (!file->is_block_device()) device->files_.push_back(file->name());
  if (write)
    RETURN_IF_ERROR(device->open_writers(name, options));
  else
    device->disk_ = device->chain_->disk();
  return device;
}

Result<void> FileDevice::open_writers(const DeviceName& name, qcow2::OpenOptions options) {
  // The reading chain holds a lock against writers.
  chain_.reset();
  if (name.force_share)
    return fail(Error::invalid(
        name_ + ": --force-share is only for reading: a writer needs exclusive access"));
  if (format_ == qcow2::Format::kQcow2) {
    options.format = format_;
    options.writable = true;
    ASSIGN_OR_RETURN(chain_, qcow2::Chain::open(name.name, options));
    ASSIGN_OR_RETURN(writer_, qcow2::open_writer(*chain_, {}));
    size_ = writer_->size();
    return {};
  }
  ASSIGN_OR_RETURN(raw_, FileStorage::open_writable(name.name));
  RETURN_IF_ERROR(raw_->lock(ImageClaim::writing(), "shut it down first"));
  if (name.direct) RETURN_IF_ERROR(raw_->bypass_cache());
  ASSIGN_OR_RETURN(size_, raw_->size());
  return {};
}

Result<std::optional<double>> FileDevice::hole_share(const Load& load) const {
  if (!disk_) return std::optional<double>{};
  Load checked = load;
  checked.count = std::min(load.count.value_or(kSamples), kMostChecked);
  checked.duration.reset();
  const uint64_t apart = std::max<uint64_t>(1, *checked.count / kSamples);
  Schedule places(checked, size_);
  uint64_t holes = 0, samples = 0;
  std::vector<qcow2::Extent> extents;
  for (uint64_t i = 0; i < *checked.count; ++i) {
    const uint64_t at = places.take().at;
    if (i % apart != 0) continue;
    extents.clear();
    RETURN_IF_ERROR(disk_->map(GuestOffset(at), load.block, extents));
    holes += std::all_of(extents.begin(), extents.end(),
                         [](const qcow2::Extent& it) { return it.reads_as_zero(); });
    ++samples;
  }
  return std::optional(static_cast<double>(holes) / static_cast<double>(samples));
}

Result<void> FileDevice::read(GuestOffset at, std::span<std::byte> to) const {
  return disk_->read(at, to);
}

Result<void> FileDevice::write(GuestOffset at, std::span<const std::byte> from) {
  if (writer_) return writer_->write(at, from);
  return raw_->write(HostOffset(at.value()), from);
}

void FileDevice::work(Schedule& schedule, const Load& load, std::span<const std::byte> pattern,
                      Tally& tally) {
  AlignedBuffer buffer(load.write ? 0 : load.block);
  while (!stop_.requested()) {
    const Schedule::Turn turn = schedule.take();
    if (turn.kind == Schedule::Turn::Kind::kEnd) return;
    if (turn.kind == Schedule::Turn::Kind::kWait) {
      schedule.wait();
      continue;
    }
    const auto begin = Schedule::Clock::now();
    const bool flushes = turn.kind == Schedule::Turn::Kind::kFlush;
    const GuestOffset at(turn.at);
    Result<void> done = flushes      ? flush()
                        : load.write ? write(at, pattern)
                                     : read(at, buffer.span());
    if (done && !flushes && load.write && load.flush_each) done = flush();
    const uint64_t took = nanoseconds(Schedule::Clock::now() - begin);
    if (!done) {
      stop_.fail(std::move(done).error());
      schedule.end();
    } else {
      (flushes ? tally.flushes : tally.latency).add(took);
    }
    flushes ? schedule.flushed() : schedule.done();
  }
  schedule.end();
}

void FileDevice::run(Schedule& schedule, const Load& load, Tally& tally) {
  AlignedBuffer pattern(load.write ? load.block : 0);
  if (load.write) std::memset(pattern.data(), load.pattern, pattern.size());
  run_threads(load.depth, schedule, stop_, tally, [&](size_t, Tally& own) -> Result<void> {
    work(schedule, load, pattern.span(), own);
    return {};
  });
}

Result<void> FileDevice::flush() {
  if (writer_) return writer_->flush();
  if (raw_) return raw_->flush();
  return {};
}

Result<void> FileDevice::close() {
  if (writer_) return writer_->close();
  return {};
}

}  // namespace vc::bench
