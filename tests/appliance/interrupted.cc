#include "tests/appliance/interrupted.h"

#include <signal.h>

#include <stdexcept>
#include <thread>

#include "tests/support/process.h"
#include "tests/support/raw_file.h"

namespace vc::test {

namespace {

using Clock = std::chrono::steady_clock;

// Enough for an emulated appliance on a busy machine.
constexpr std::chrono::minutes kPatience(15);
constexpr std::chrono::seconds kPatienceWithTheEnd(60);
constexpr std::chrono::milliseconds kPollInterval(10);

}  // namespace

void interrupt(const std::vector<std::string>& command, const std::string& log,
               const Moment& moment) {
  support::Child child(command, log);
  const auto said = [&] {
    const auto bytes = support::read_file(log);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  const auto start = Clock::now();
  while (said().find(moment.step) == std::string::npos) {
    if (!child.running() || Clock::now() - start > kPatience)
      throw std::runtime_error("never at '" + moment.step + "': " + said());
    std::this_thread::sleep_for(kPollInterval);
  }
  std::this_thread::sleep_for(moment.later);
  ::kill(child.pid(), moment.signal);
  const auto asked = Clock::now();
  while (child.running()) {
    if (Clock::now() - asked > kPatienceWithTheEnd)
      throw std::runtime_error("does not end: " + said());
    std::this_thread::sleep_for(kPollInterval);
  }
}

}  // namespace vc::test
