// The init of the test's guest, a static program. It writes, reads back, flushes, zeroes and
// discards blocks of its disk until it is told to stop, and acts as a guest agent that can trim.
//
// Lines on the first serial port:
//
//     READY        the disk is open
//     module …     a module cannot be loaded
//     S N          all operations up to N are on the disk
//     BAD …        a block has the wrong content, or a request has failed
//     T            the agent has trimmed
//     S N T        the write N, of one block, is on the disk after T microseconds of the guest's
//     clock:
//                  the only lines of a guest whose kernel has the argument "waits"
//     END N        N operations were done, and all are on the disk; the guest powers off
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/live/pattern.h"

using namespace vc::live_test;

namespace {

int serial = -1;

void say(const std::string& line) {
  const std::string text = line + "\n";
  (void)!::write(serial, text.data(), text.size());
}

// The names of the modules have numbers that give their order.
void load_modules() {
  for (int i = 0; i < 32; ++i) {
    char path[32];
    std::snprintf(path, sizeof path, "/mod/%02d.ko", i);
    const int file = ::open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) continue;
    if (::syscall(SYS_finit_module, file, "", 0) != 0 && errno != EEXIST && i > 0)
      say(std::string("module ") + path + ": " + std::strerror(errno));
    ::close(file);
  }
}

int wait_for(const char* path, int flags) {
  for (int i = 0; i < 600; ++i) {
    const int file = ::open(path, flags);
    if (file >= 0) return file;
    ::usleep(100'000);
  }
  return -1;
}

// Returns the number after "id": in a request of libvirt.
std::string id_of(const std::string& request) {
  const size_t at = request.find("\"id\":");
  if (at == std::string::npos) return "0";
  const size_t end = request.find_first_of(",}", at);
  return request.substr(at + 5, end - at - 5);
}

void discard(int disk, uint64_t start, uint64_t length) {
  uint64_t range[2] = {start, length};
  if (::ioctl(disk, BLKDISCARD, range) != 0) say("BAD discard");
}

// Answers requests like qemu-guest-agent.
[[noreturn]] void run_agent() {
  const int disk = ::open("/dev/vda", O_RDWR | O_CLOEXEC);
  int port = -1;
  for (int i = 0; port < 0 && i < 600; ++i) {
    port = ::open(i % 2 == 0 ? "/dev/vport0p1" : "/dev/vport1p1", O_RDWR | O_CLOEXEC);
    if (port < 0) ::usleep(50'000);
  }
  if (port < 0 || disk < 0) ::_exit(1);
  for (std::string text;;) {
    char piece[512];
    const ssize_t got = ::read(port, piece, sizeof piece);
    if (got <= 0) {
      ::usleep(50'000);
      continue;
    }
    text.append(piece, static_cast<size_t>(got));
    for (size_t end; (end = text.find('\n')) != std::string::npos; text.erase(0, end + 1)) {
      const std::string request = text.substr(0, end);
      std::string answer = "{\"return\": {}}\n";
      if (request.find("guest-sync") != std::string::npos) {
        answer = "{\"return\": " + id_of(request) + "}\n";
      } else if (request.find("guest-fstrim") != std::string::npos) {
        discard(disk, kGarbageStart, kGarbageBytes);
        say("T");
      } else if (request.find("guest-shutdown") != std::string::npos) {
        ::kill(::getppid(), SIGUSR1);
      }
      (void)!::write(port, answer.data(), answer.size());
    }
  }
}

class Workload {
 public:
  explicit Workload(int disk) : disk_(disk), states_(kBlocks) {
    void* memory = nullptr;
    if (::posix_memalign(&memory, kBlockSize, kMostAtOnce * kBlockSize) != 0) std::abort();
    buffer_ = static_cast<unsigned char*>(memory);
  }

  void step(uint32_t number) {
    const Operation it = operation(number);
    const uint64_t at = kPatternStart + uint64_t{it.first} * kBlockSize;
    const size_t bytes = size_t{it.count} * kBlockSize;
    uint64_t range[2] = {at, bytes};
    bool ok = true;
    switch (it.kind) {
      case Kind::kWrite:
        for (uint32_t i = 0; i < it.count; ++i)
          fill(buffer_ + size_t{i} * kBlockSize, number, it.first + i);
        ok = ::pwrite(disk_, buffer_, bytes, static_cast<off_t>(at)) == static_cast<ssize_t>(bytes);
        break;
      case Kind::kRead:
        ok = ::pread(disk_, buffer_, bytes, static_cast<off_t>(at)) == static_cast<ssize_t>(bytes);
        for (uint32_t i = 0; ok && i < it.count; ++i)
          if (!matches(buffer_ + size_t{i} * kBlockSize, states_[it.first + i], it.first + i))
            say("BAD block " + std::to_string(it.first + i) + " at " + std::to_string(number));
        return report(ok, number);
      case Kind::kFlush:
        ok = ::fdatasync(disk_) == 0;
        if (ok) say("S " + std::to_string(number));
        return report(ok, number);
      case Kind::kZero:
        ok = ::ioctl(disk_, BLKZEROOUT, range) == 0;
        break;
      case Kind::kDiscard:
        ok = ::ioctl(disk_, BLKDISCARD, range) == 0;
        break;
    }
    for (uint32_t i = 0; i < it.count; ++i) states_[it.first + i] = {it.kind, number};
    report(ok, number);
  }

 private:
  static void report(bool ok, uint32_t number) {
    if (!ok) say("BAD request " + std::to_string(number));
  }

  const int disk_;
  std::vector<State> states_;
  unsigned char* buffer_;
};

bool has_argument(const char* word) {
  char text[4096] = "";
  const int file = ::open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  const ssize_t got = ::read(file, text, sizeof text - 1);
  ::close(file);
  return got > 0 && std::strstr(text, word) != nullptr;
}

uint64_t microseconds() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

volatile sig_atomic_t told_to_stop = 0;

// Writes and flushes one block after the other, and tells how long each took.
void measure_waits(int disk) {
  void* memory = nullptr;
  if (::posix_memalign(&memory, kBlockSize, kBlockSize) != 0) std::abort();
  auto* const block = static_cast<unsigned char*>(memory);
  for (uint32_t number = 0; told_to_stop == 0; ++number) {
    const uint32_t index = operation(number).first;
    fill(block, number, index);
    const uint64_t at = kPatternStart + uint64_t{index} * kBlockSize;
    const uint64_t start = microseconds();
    if (::pwrite(disk, block, kBlockSize, static_cast<off_t>(at)) != kBlockSize ||
        ::fdatasync(disk) != 0)
      say("BAD request " + std::to_string(number));
    say("S " + std::to_string(number) + " " + std::to_string(microseconds() - start));
    ::usleep(1'000);
  }
}

void run() {
  const int disk = wait_for("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
  if (disk < 0) return say("BAD disk");
  if (::fork() == 0) run_agent();
  say("READY");
  if (has_argument("waits")) return measure_waits(disk);
  Workload workload(disk);
  uint32_t number = 0;
  while (told_to_stop == 0) {
    workload.step(number++);
    // Leaves time for the other processes of the machine.
    ::usleep(1'000);
  }
  if (::fdatasync(disk) != 0) say("BAD last flush");
  say("END " + std::to_string(number));
}

}  // namespace

int main() {
  for (const char* folder : {"/dev", "/proc", "/sys"}) ::mkdir(folder, 0755);
  ::mount("devtmpfs", "/dev", "devtmpfs", 0, "");
  ::mount("proc", "/proc", "proc", 0, "");
  ::mount("sysfs", "/sys", "sysfs", 0, "");
  serial = ::open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_CLOEXEC);
  ::signal(SIGUSR1, [](int) { told_to_stop = 1; });
  load_modules();
  run();
  ::sync();
  ::reboot(RB_POWER_OFF);
  return 0;
}
