#include "tests/plugin/failing_server.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <stdexcept>

namespace vc::test {

FailingServer::FailingServer(const std::vector<std::string>& parameters) {
  const std::string path = folder_ / "faults";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ::ftruncate(fd, sizeof(Faults)) != 0) throw std::runtime_error(path);
  void* const at = ::mmap(nullptr, sizeof(Faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  if (at == MAP_FAILED) throw std::runtime_error(path + ": mmap");
  faults_ = new (at) Faults;

  const char* const library = std::getenv("VIRT_COMPACT_FAILING_FILE");
  if (!library) throw std::runtime_error("VIRT_COMPACT_FAILING_FILE is not set");
  // Set only for the server that starts now.
  ::setenv("VIRT_COMPACT_FAULTS", path.c_str(), 1);
  ::setenv("LD_PRELOAD", library, 1);
  server_ = std::make_unique<WritingServer>(parameters);
  ::unsetenv("LD_PRELOAD");
  ::unsetenv("VIRT_COMPACT_FAULTS");
}

FailingServer::~FailingServer() {
  server_.reset();
  ::munmap(faults_, sizeof(Faults));
}

void FailingServer::fail_with(int error, int64_t good_calls, bool reads) {
  faults_->good_calls = good_calls;
  faults_->reads = reads;
  faults_->error = error;
}

}  // namespace vc::test
