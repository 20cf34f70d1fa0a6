// Measures optimize --live: how long a guest waits, and the time that a run takes.
//
//     meson test -C build --benchmark --verbose live
//
// Waits: a guest writes and flushes one block after the other. Its longest wait is taken during a
// run, and in as much time after it without a run, in turn. Paused guests have no time, so the
// waits are also measured from outside, by the lines that the guest prints: with these, the pauses
// count. Time: the same disk is optimized live and while its guest is off, in turn.
//
// VIRT_COMPACT_BENCH_PAIRS sets the number of pairs (5), VIRT_COMPACT_BENCH_MEGABYTES the data of
// the disk (1024).
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "tests/live/hand_qemu.h"
#include "tests/live/live_guest.h"
#include "tests/support/command_line.h"

using namespace vc;

using live_test::GuestFiles;
using live_test::HandQemu;
using live_test::LiveGuest;
using live_test::TestDomain;

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

unsigned setting(const char* name, unsigned otherwise) {
  const char* const text = std::getenv(name);
  return text ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : otherwise;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

struct Waits {
  double guest = 0;    // longest write and flush by the guest's clock, ms
  double outside = 0;  // longest time between two lines of the guest, ms
  size_t writes = 0;
};

// Watches the lines of a guest from its construction until end().
class Watch {
 public:
  explicit Watch(const GuestFiles& guest)
      : guest_(guest), before_(guest.lines("S ").size()), thread_([this] { watch(); }) {}
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch() {
    if (thread_.joinable()) end();
  }

  Waits end() {
    done_.store(true);
    thread_.join();
    Waits waits;
    waits.outside = longest_.count() * 1000;
    const auto lines = guest_.lines("S ");
    for (size_t i = before_; i < lines.size(); ++i) {
      std::istringstream words(lines[i]);
      std::string word;
      uint64_t number = 0;
      double microseconds = 0;
      words >> word >> number >> microseconds;
      waits.guest = std::max(waits.guest, microseconds / 1000);
      ++waits.writes;
    }
    return waits;
  }

 private:
  void watch() {
    uintmax_t length = fs::file_size(guest_.serial());
    auto last = Clock::now();
    while (!done_.load()) {
      const uintmax_t now = fs::file_size(guest_.serial());
      if (now != length) {
        longest_ = std::max<Seconds>(longest_, Clock::now() - last);
        length = now;
        last = Clock::now();
      }
      ::usleep(500);
    }
  }

  const GuestFiles& guest_;
  const size_t before_;
  std::atomic<bool> done_{false};
  Seconds longest_{};
  std::thread thread_;
};

nlohmann::json report_of(const support::Outcome& done) {
  if (!done.ok()) throw std::runtime_error(done.describe());
  return nlohmann::json::parse(done.out)["disks"][0];
}

// `run` optimizes the disk of the guest once, and returns the report.
template <typename Run>
void compare_waits(const char* title, const GuestFiles& guest, unsigned pairs, const Run& run) {
  fmt::print(
      "\nLongest wait of a guest, {}, ms\n\n"
      "           with a run                     without\n"
      "  seconds  by its clock  outside  pauses  by its clock  outside\n",
      title);
  std::vector<double> more_guest;
  std::vector<double> more_outside;
  for (unsigned i = 0; i < pairs; ++i) {
    const auto start = Clock::now();
    Watch during(guest);
    const nlohmann::json report = run();
    const Waits with = during.end();
    const auto length = Clock::now() - start;
    Watch after(guest);
    std::this_thread::sleep_for(length);
    const Waits without = after.end();
    fmt::print("  {:7.1f}  {:12.1f}  {:7.1f}  {:6.1f}  {:12.1f}  {:7.1f}\n",
               Seconds(length).count(), with.guest, with.outside,
               report["longest-pause"].get<double>() * 1000, without.guest, without.outside);
    std::fflush(stdout);
    more_guest.push_back(with.guest - without.guest);
    more_outside.push_back(with.outside - without.outside);
  }
  fmt::print("  median of what a run adds: {:.1f} by the guest's clock, {:.1f} outside\n",
             median(more_guest), median(more_outside));
}

void measure_waits(unsigned pairs, unsigned megabytes) {
  {
    const tune_test::LibvirtDaemon daemon;
    const LiveGuest guest(daemon, "waits", megabytes);
    const TestDomain& domain = guest.domain();
    compare_waits("with libvirt", guest.files(), pairs, [&] {
      return report_of(domain.tool({"optimize", "--live", "--force", "--no-fstrim", "--no-backup",
                                    "--json", domain.name()}));
    });
  }
  const support::TempDirectory folder;
  std::optional<GuestFiles> guest;
  const auto file = [&](const char* name) { return folder / name; };
  HandQemu qemu(HandQemu::Style::kDrive,
                {"-m", "192", "-kernel", file("kernel"), "-initrd", file("initrd"), "-append",
                 std::string(GuestFiles::kernel_arguments()) + " waits", "-serial",
                 "file:" + file("serial"), "-serial", "null"},
                [&](const std::string& disk) { guest.emplace(folder.path(), disk, megabytes); });
  guest->work(3);
  compare_waits("over QMP", *guest, pairs, [&] {
    return report_of(
        qemu.tool({"optimize", "--live", "--force", "--no-backup", "--json", qemu.disk()}));
  });
}

// Returns the processor time of a process, seconds.
double used_by(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  std::istringstream words(text.substr(text.rfind(')') + 2));
  std::string word;
  // The fields 14 and 15; the first one after the name is the third.
  for (unsigned i = 3; i < 14; ++i) words >> word;
  double user = 0;
  double system = 0;
  words >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double used_by_children() {
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Cost {
  double seconds = 0;
  double processor = 0;  // seconds, with those of QEMU
};

template <typename Run>
Cost cost_of(const Run& run, const std::function<double()>& other) {
  ::sync();
  const double before = used_by_children() + other();
  const auto start = Clock::now();
  const auto done = run();
  Cost cost;
  cost.seconds = Seconds(Clock::now() - start).count();
  cost.processor = used_by_children() + other() - before;
  if (!done.ok()) throw std::runtime_error(done.describe());
  return cost;
}

void make_disk(const std::string& disk, unsigned megabytes) {
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, fmt::format("{}M", megabytes)});
  std::vector<std::string> command{"qemu-io", "-t", "unsafe", "-f", "qcow2"};
  // In disorder.
  for (unsigned i = 0; i < megabytes; ++i)
    command.insert(command.end(),
                   {"-c", fmt::format("write -q -P {} {}M 1M", 1 + i % 255, i * 7 % megabytes)});
  command.push_back(disk);
  support::run_ok(command);
}

void measure_times(unsigned pairs, unsigned megabytes) {
  const tune_test::LibvirtDaemon daemon;
  const TestDomain domain(daemon, {});
  make_disk(domain.disk(), megabytes | 1);
  const std::string off = daemon.folder() + "/off.qcow2";
  support::run_ok({"cp", domain.disk(), off});
  domain.define();
  domain.start();
  const pid_t qemu = domain.qemu();
  fmt::print(
      "\nSeconds to optimize a disk with {} MiB of data\n\n"
      "  live  processor  off  processor  ratio  of processor\n",
      megabytes);
  std::vector<double> ratios;
  std::vector<double> of_processor;
  // The first pair orders the disks.
  for (unsigned i = 0; i < pairs + 1; ++i) {
    const Cost live = cost_of(
        [&] {
          return domain.tool(
              {"optimize", "--live", "--force", "--no-fstrim", "--no-backup", domain.name()});
        },
        [&] { return used_by(qemu); });
    const Cost offline = cost_of(
        [&] {
          return tool_test::run_tool({"optimize", "--force", "--no-trim", "--no-backup", off});
        },
        [] { return 0.0; });
    if (i == 0) continue;
    ratios.push_back(live.seconds / offline.seconds);
    of_processor.push_back(live.processor / offline.processor);
    fmt::print("  {:4.2f}  {:9.2f}  {:4.2f}  {:8.2f}  {:5.2f}  {:12.2f}\n", live.seconds,
               live.processor, offline.seconds, offline.processor, ratios.back(),
               of_processor.back());
    std::fflush(stdout);
  }
  fmt::print("  median of the ratios: {:.2f}, of processor time {:.2f}\n", median(ratios),
             median(of_processor));
}

}  // namespace

int main() {
  try {
    const unsigned pairs = setting("VIRT_COMPACT_BENCH_PAIRS", 5);
    const unsigned megabytes = setting("VIRT_COMPACT_BENCH_MEGABYTES", 1024);
    measure_waits(pairs, megabytes / 4);
    measure_times(pairs, megabytes);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
