// A disk on an NBD server under load: one thread per connection, many requests in flight on each.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/device.h"
#include "nbd/connection.h"
#include "nbd/limits.h"
#include "nbd/target.h"
#include "nbd/tuning.h"

namespace vc::bench {

// A lost connection is an error, since a gap would spoil the figures. Uses only connections and
// timeout of the tuning.
class NbdDevice final : public Device {
 public:
  static Result<std::unique_ptr<Device>> open(const nbd::NbdTarget& target,
                                              const nbd::NbdTuning& tuning, bool write, Stop& stop);

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return limits_.size; }
  const char* format() const override { return "nbd"; }
  Result<void> check(const Load& load) const override;
  void run(Schedule& schedule, const Load& load, Tally& tally) override;
  Result<void> flush() override;
  Result<void> close() override;

 private:
  class Worker;
  NbdDevice(std::string name, Stop& stop) : name_(std::move(name)), stop_(stop) {}

  const std::string name_;
  Stop& stop_;
  bool write_ = false;
  nbd::NbdLimits limits_;
  std::shared_ptr<nbd::NbdEndpoint> endpoint_;
  // Declared after the endpoint, which they refer to.
  std::vector<std::unique_ptr<nbd::NbdConnection>> connections_;
};

}  // namespace vc::bench
