// A server whose image is on a disk that fails on request.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/plugin/failing_file.h"
#include "tests/plugin/writing_server.h"
#include "tests/support/temp_directory.h"

namespace vc::test {

class FailingServer {
 public:
  explicit FailingServer(const std::vector<std::string>& parameters);
  FailingServer(const FailingServer&) = delete;
  FailingServer& operator=(const FailingServer&) = delete;
  ~FailingServer();

  // After `good_calls` more calls, all calls to the image fail with `error`.
  void fail_with(int error, int64_t good_calls, bool reads);
  void work_again() { faults_->error = 0; }
  // Returns the number of failed calls.
  int64_t failed() const { return faults_->failed; }
  WritingServer& server() { return *server_; }

 private:
  support::TempDirectory folder_;
  Faults* faults_;
  std::unique_ptr<WritingServer> server_;
};

}  // namespace vc::test
