// libFuzzer target: takes any bytes as a policy of nightly.
//
//     meson setup build-fuzz -Dfuzzers=true   (with CXX=clang++-19)
//     build-fuzz/tests/fuzz/fuzz_policy -max_len=4096 CORPUS deploy/systemd
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tool/nightly/policy.h"

using namespace vc;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto policy = tool::read_policy(text, "fuzz");
  if (!policy) {
    if (!policy.error().message().starts_with("fuzz:")) __builtin_trap();
    return 0;
  }
  if (policy->domains.empty() && policy->disks.empty()) __builtin_trap();
  for (const tool::DomainRule& rule : policy->domains) {
    if (rule.names.empty()) __builtin_trap();
    static_cast<void>(rule.takes("web-1"));
    static_cast<void>(rule.settings.fingerprint());
  }
  for (const tool::DiskRule& rule : policy->disks)
    if (rule.paths.empty() || rule.paths.front().front() != '/') __builtin_trap();
  return 0;
}
