// A block device that is too small for the copy is not changed.

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

namespace {

using tool_test::run_tool;

// A loop device for a file. No device if the system permits none.
class LoopDevice {
 public:
  explicit LoopDevice(const std::string& file) {
    if (::geteuid() != 0) return;
    const auto made = support::run({"losetup", "-f", "--show", file});
    if (made.ok()) path_ = made.out.substr(0, made.out.find('\n'));
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  ~LoopDevice() {
    if (!path_.empty()) support::run({"losetup", "-d", path_});
  }

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

TEST_CASE("a device that is too small is not overwritten", "[device]") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  const std::string backing = folder / "device";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"});
  // Random bytes, which are incompressible, and stored zeros.
  const std::string noise = folder / "noise";
  tool_test::run_script("head -c 2M /dev/urandom > \"$1\"", {noise});
  support::run_ok(
      {"qemu-io", "-c", "write -q -s " + noise + " 0 2M", "-c", "write -q -P 0 8M 8M", disk});
  const std::string before(4 << 20, 'x');
  support::write_file(backing, before);
  const LoopDevice device(backing);
  if (device.path().empty()) {
    WARN("skipped: no loop device");
    return;
  }
  const auto content = [&] { return support::read_file(device.path()); };
  const auto untouched = content();

  struct Attempt {
    std::vector<std::string> options;
    const char* message;
  };
  for (const Attempt& it : std::vector<Attempt>{
           {{"-O", "raw"}, "the device has 4194304 bytes, too few for a disk of 67108864"},
           {{"-O", "raw", "--dry-run"}, "too few for a disk of 67108864"},
           {{"-O", "qcow2", "-o", "preallocation=metadata"}, ""},
           {{"-O", "qcow2", "-o", "cluster_size=2M"}, "too few for an image of"},
           {{"-O", "qcow2", "-c", "-o", "cluster_size=2M"}, "too few for an image of"},
           {{"-O", "qcow2", "--dry-run", "-o", "cluster_size=2M"}, "too few for an image of"}}) {
    std::vector<std::string> command = {"copy", disk, device.path()};
    command.insert(command.end(), it.options.begin(), it.options.end());
    const auto outcome = run_tool(command);
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::Contains(it.message));
    CHECK(content() == untouched);
  }
  const auto data = run_tool({"copy", "-o", "data_file=" + device.path(), disk, folder / "image"});
  INFO(data.describe());
  CHECK_THAT(data.err, Catch::Contains("too few for a disk of 67108864"));
  CHECK(content() == untouched);
  // All clusters of the source would not fit, but the data without zeros does.
  const auto fits = run_tool({"copy", "--verify", "-O", "qcow2", disk, device.path()});
  INFO(fits.describe());
  CHECK(fits.ok());
  CHECK(support::run({"qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", disk, device.path()})
            .ok());
}
