#include "bench/measure.h"

#include <thread>

#include "base/mutex.h"
#include "bench/open_device.h"

namespace vc::bench {

namespace {

constexpr std::chrono::milliseconds kTick(100);

// Reports the progress of a schedule, and ends the schedule on cancel.
class Observer {
 public:
  Observer(Schedule& schedule, const Stop& stop, uint64_t block,
           const std::function<void(uint64_t)>& progress)
      : thread_([this, &schedule, &stop, block, &progress] {
          MutexLock lock(mutex_);
          while (!over_) {
            wake_.wait_for(lock, kTick);
            if (over_) break;
            if (stop.requested()) schedule.end();
            if (progress) progress(schedule.issued() * block);
          }
        }) {}
  ~Observer() {
    {
      const MutexLock lock(mutex_);
      over_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

 private:
  Mutex mutex_;
  ConditionVariable wake_;
  bool over_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

std::optional<CachedPages> cached_pages_of(const std::vector<std::string>& files) {
  if (files.empty()) return std::nullopt;
  CachedPages all;
  for (const std::string& file : files) {
    const auto pages = cached_pages(file);
    if (!pages) return std::nullopt;
    all.cached += pages->cached;
    all.length += pages->length;
    all.sampled |= pages->sampled;
  }
  return all;
}

}  // namespace

Result<Measurement> measure(const MeasureOptions& options, const Cancel& cancel) {
  Stop stop(cancel);
  ASSIGN_OR_RETURN(const auto device, open_device(options.device, options.load.write, stop));
  RETURN_IF_ERROR(with_context(Schedule::check(options.load, device->size()), device->name()));
  RETURN_IF_ERROR(device->check(options.load));
  Measurement result;
  result.name = device->name();
  result.format = device->format();
  result.size = device->size();
  result.block = options.load.block;
  // Reads tables, which would refill the cache: do it before the cache is dropped.
  ASSIGN_OR_RETURN(result.holes, device->hole_share(options.load));
  const std::vector<std::string> files = device->files();
  if (options.drop_cache) {
    if (files.empty())
      return fail(Error::unsupported(
          device->name() +
          ": --drop-cache works only for files, not for servers and block devices"));
    for (const std::string& file : files) RETURN_IF_ERROR(drop_pages(file));
  }
  result.cached_before = cached_pages_of(files);

  Schedule schedule(options.load, device->size());
  {
    const Observer observer(schedule, stop, options.load.block, options.progress);
    device->run(schedule, options.load, result.tally);
    result.elapsed = Schedule::Clock::now() - schedule.begin();
  }
  RETURN_IF_ERROR(stop.result());
  result.requests = result.tally.latency.count();
  if (options.load.write && options.load.flush_at_end) {
    const auto begin = Schedule::Clock::now();
    RETURN_IF_ERROR(device->flush());
    result.flush = Schedule::Clock::now() - begin;
  }
  result.cached_after = cached_pages_of(files);
  RETURN_IF_ERROR(device->close());
  return result;
}

Result<uint64_t> disk_size(const DeviceName& name, const Cancel& cancel) {
  Stop stop(cancel);
  ASSIGN_OR_RETURN(const auto device, open_device(name, false, stop));
  return device->size();
}

}  // namespace vc::bench
