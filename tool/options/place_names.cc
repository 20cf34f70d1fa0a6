#include "tool/options/place_names.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "base/retry.h"
#include "nbd/uri.h"
#include "tool/options/bracketed_commands.h"

namespace vc::tool {

namespace {

using qcow2::Format;

struct Ending {
  const char* ending;
  const char* format;
};

// File name suffixes of hypervisors and distributions. ".img" can be any format.
constexpr std::array kEndings{
    Ending{"qcow2", "qcow2"},   Ending{"raw", "raw"},       Ending{"iso", "raw"},
    Ending{"qcow", "qcow v1"},  Ending{"qed", "QED"},       Ending{"vmdk", "VMDK"},
    Ending{"vdi", "VDI"},       Ending{"vhd", "VHD"},       Ending{"vhdx", "VHDX"},
    Ending{"vpc", "VHD"},       Ending{"ova", "OVA"},       Ending{"dmg", "DMG"},
    Ending{"xz", "compressed"}, Ending{"gz", "compressed"}, Ending{"zst", "compressed"},
    Ending{"bz2", "compressed"}};

bool is_device(const std::string& path) {
  struct stat status {};
  return retry(::stat, path.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
}

}  // namespace

std::optional<std::string> name_contradiction(const std::string& path, Format format) {
  if (path == "-" || path == "null:" || unfold_command(path) || is_device(path))
    return std::nullopt;
  if (const auto is_nbd = nbd::is_nbd_uri(path); !is_nbd || *is_nbd) return std::nullopt;
  const size_t dot = path.rfind('.');
  if (dot == std::string::npos || path.find('/', dot) != std::string::npos) return std::nullopt;
  std::string ending = path.substr(dot + 1);
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](unsigned char it) { return static_cast<char>(std::tolower(it)); });
  const auto* const found = std::find_if(kEndings.begin(), kEndings.end(),
                                         [&](const Ending& it) { return ending == it.ending; });
  const std::string made = qcow2::to_string(format);
  if (found == kEndings.end() || made == found->format) return std::nullopt;
  // QEMU uses ".qcow" for both versions.
  if (made == "qcow2" && ending == "qcow") return std::nullopt;
  return fmt::format(
      "{}: is written as {}, although its name suggests {}: use -O to choose the format", path,
      made, found->format);
}

}  // namespace vc::tool
