// libFuzzer target: takes any bytes as a domain definition. Scans, reads and tunes it.
//
//     meson setup build-fuzz -Dfuzzers=true   (with CXX=clang++-19)
//     build-fuzz/tests/fuzz/fuzz_xml CORPUS
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "libvirt/domain.h"
#include "libvirt/tuning.h"
#include "libvirt/xml_scanner.h"

using namespace vc;

namespace {

// Keeps what tuning must not change: everything except white space and the tags with settings.
class Rest final : public libvirt::XmlScanner::Handler {
 public:
  explicit Rest(std::string_view text) : text_(text) {}

  Result<void> start(const libvirt::XmlTag& tag) override {
    if (tag.whole.begin >= tag.whole.end || tag.whole.end > text_.size()) __builtin_trap();
    for (const libvirt::XmlAttribute& it : tag.attributes) {
      if (it.value.begin > it.value.end || it.value.end >= tag.whole.end) __builtin_trap();
      if (text_[it.value.end] != it.quote) __builtin_trap();
      static_cast<void>(
          libvirt::decode_value(text_.substr(it.value.begin, it.value.end - it.value.begin)));
    }
    const auto name = text_.substr(tag.name.begin, tag.name.end - tag.name.begin);
    if (name != "driver" && name != "blockio") return {};
    keep(tag.whole.begin);
    at_ = tag.whole.end;
    return {};
  }
  Result<void> end() override { return {}; }

  std::string finish() {
    keep(text_.size());
    return std::move(kept_);
  }

 private:
  void keep(size_t end) {
    for (const char it : text_.substr(at_, end - at_))
      if (it != ' ' && it != '\n' && it != '\t' && it != '\r') kept_ += it;
  }

  const std::string_view text_;
  size_t at_ = 0;
  std::string kept_;
};

std::string rest_of(std::string_view text) {
  Rest rest(text);
  libvirt::XmlScanner scanner(text, "fuzz");
  // A definition that could be tuned is well-formed, and stays so.
  if (!scanner.scan(rest)) __builtin_trap();
  return rest.finish();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Rest any(text);
  libvirt::XmlScanner scanner(text, "fuzz");
  const bool well_formed = scanner.scan(any).has_value();
  const auto domain = libvirt::read_domain(text, "fuzz");
  if (domain && !well_formed) __builtin_trap();
  const libvirt::Settings settings;
  const auto once = libvirt::tune(text, "fuzz", settings);
  if (!once) return 0;
  if (!domain || once->disks.size() != domain->disks.size()) __builtin_trap();
  if (once->changes() == 0 && once->text != text) __builtin_trap();
  if (rest_of(text) != rest_of(once->text)) __builtin_trap();
  // A second tuning changes nothing.
  const auto twice = libvirt::tune(once->text, "fuzz", settings);
  if (!twice || twice->text != once->text || twice->changes() != 0) __builtin_trap();
  return 0;
}
