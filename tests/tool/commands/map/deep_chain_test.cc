// Memory does not grow with the depth of a chain.
#include <span>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/interop/image_editor.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

// Each image has an L1 table of 32 MiB. All of them together would take 1 GB.
TEST_CASE("a chain of 30 images with large tables is copied in little memory", "[deep_chain]") {
  const support::TempDirectory folder;
  const auto path_of = [&](int i) { return folder / ("image" + std::to_string(10 + i)); };
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "-u", "-b",
                   "image00", "-F", "qcow2", path_of(1), "128G"});
  interop::ImageEditor header(path_of(1));
  const uint64_t name = header.get64(interop::ImageEditor::kBackingOffset);
  constexpr int kImages = 30;
  for (int i = 0; i < kImages; ++i) {
    if (i != 1) support::run_ok({"cp", "--sparse=always", path_of(1), path_of(i)});
    const std::string base = "image" + std::to_string(10 + i - 1);
    support::patch_file(path_of(i), name, std::as_bytes(std::span(base)));
  }
  // The first image has no backing file.
  support::patch_file(path_of(0), interop::ImageEditor::kBackingOffset, std::vector<std::byte>(12));
  support::run_ok({"qemu-io", "-c", "write -q -P 1 100G 1M", path_of(0)});
  const std::string top = path_of(kImages - 1);
  const auto outcome = tool_test::run_tool({"copy", top, folder / "copy"});
  INFO(outcome.describe());
  CHECK(outcome.ok());
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(outcome.peak_memory < 300 << 20);
#endif
  support::run_ok({"qemu-io", "-r", "-c", "read -q -P 1 100G 1M", folder / "copy"});
}
