// A run for one disk that ends with an error or an exception is undone.
#include "live/end_of_run.h"

#include <stdexcept>

#include "tests/catch_text.h"

using namespace vc;

using live::LiveDiskReport;

namespace {

class Quiet final : public appliance::Observer, public Progress {
 public:
  void step(const std::string& /*what*/) override {}
  void warning(const std::string& /*what*/) override {}
  void update(uint64_t /*done*/, uint64_t /*total*/) override {}
};

struct FakeDisk {
  std::function<Result<bool>()> finish;
  std::function<Result<void>()> undo_step = [] { return Result<void>(); };
  LiveDiskReport own = {};
  unsigned undone = 0;

  LiveDiskReport& report() { return own; }
  bool is_decided() const { return false; }
  Result<void> undo() {
    ++undone;
    return undo_step();
  }
};

FakeDisk end_of(FakeDisk disk) {
  const auto guardian = live::Guardian::start([](const std::string& /*task*/) {});
  REQUIRE(guardian);
  const live::LiveOptions options;
  Quiet quiet;
  const Cancel cancel;
  const live::RunContext context{**guardian, options, quiet, quiet, cancel};
  disk.own.disk = "/disks/web.qcow2";
  live::finish_or_undo(context, disk);
  return disk;
}

}  // namespace

TEST_CASE("a run that fails is undone, also after an exception", "[live]") {
  const auto error = end_of({[]() -> Result<bool> { return fail(Error::invalid("no space")); }});
  CHECK(error.undone == 1);
  CHECK(error.own.error == "no space");
  CHECK_FALSE(error.own.failed);

  // std::thread and containers throw.
  const auto thrown = end_of({[]() -> Result<bool> { throw std::runtime_error("no thread"); }});
  CHECK(thrown.undone == 1);
  CHECK(thrown.own.error == "/disks/web.qcow2: no thread");
  CHECK_FALSE(thrown.own.failed);

  const auto done = end_of({[]() -> Result<bool> { return true; }});
  CHECK(done.undone == 0);
  CHECK(done.own.error.empty());
}

TEST_CASE("a run that cannot be undone names the commands that complete it", "[live]") {
  const auto stuck = end_of({[]() -> Result<bool> { return fail(Error::invalid("no space")); },
                             []() -> Result<void> { return fail(Error::invalid("no answer")); }});
  CHECK(stuck.own.failed);
  CHECK_THAT(stuck.own.error, Catch::Contains("no space; no answer") &&
                                  Catch::Contains("--resume /disks/web.qcow2") &&
                                  Catch::Contains("rollback /disks/web.qcow2"));
}
