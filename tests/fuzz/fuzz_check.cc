// libFuzzer target: takes any bytes as an image, checks and repairs it, and undoes the repair. The
// first byte selects the options.
//
//     meson setup build-fuzz -Dfuzzers=true   (with CXX=clang++-19)
//     build-fuzz/tests/fuzz/fuzz_check CORPUS
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "qcow2/repair/repair.h"
#include "qcow2/repair/undo_file.h"
#include "tests/fuzz/bounded_storage.h"

using namespace vc;

namespace {

// Stops a check that a hostile image makes long.
class Impatient final : public qcow2::CheckObserver {
 public:
  void found(const qcow2::Finding& finding) override {
    static_cast<void>(qcow2::describe(finding, 65536));
    ++found_;
  }
  bool cancelled() override { return found_ > 100000 || ++asked_ > 10000; }

 private:
  uint64_t found_ = 0;
  uint64_t asked_ = 0;
};

std::string undo_path() {
  return std::filesystem::temp_directory_path() / ("fuzz-undo-" + std::to_string(::getpid()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  static const std::string undo = undo_path();
  const auto storage = std::make_shared<fuzz::BoundedStorage>(data + 1, size - 1);
  const auto before = storage->bytes();

  qcow2::RepairOptions options;
  options.what =
      (data[0] & 1) != 0 ? qcow2::RepairOptions::What::kLeaks : qcow2::RepairOptions::What::kAll;
  options.lossy = (data[0] & 2) != 0;
  options.check.deep = (data[0] & 4) != 0;
  options.check.threads = 1;
  if ((data[0] & 8) != 0) options.check.count_memory = 1;
  options.undo_path = undo;
  Impatient observer;
  // The result does not matter: all writes can be undone.
  const auto done = qcow2::repair(storage, options, observer);
  if (done && done->has_written != std::filesystem::exists(undo)) __builtin_trap();
  if (std::filesystem::exists(undo)) {
    if (!qcow2::apply_undo(undo, *storage)) __builtin_trap();
    std::filesystem::remove(undo);
  }
  if (storage->bytes() != before) __builtin_trap();
  return 0;
}
