#include "tool/report/versions.h"

#include <fmt/format.h>
#include <sys/utsname.h>
#include <zstd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>

#include "appliance/appliance.h"
#include "libvirt/library_version.h"
#include "nbd/library_version.h"

namespace vc::tool {

namespace {

// Returns the name of the distribution, or an empty string.
std::string distribution() {
  std::ifstream file("/etc/os-release");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("PRETTY_NAME=", 0) == 0) {
      std::string name = line.substr(line.find('=') + 1);
      std::erase(name, '"');
      return name;
    }
  return {};
}

// Returns the first line that the program prints, or "not found".
std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen((command + " 2>&1").c_str(), "r"),
                                                   ::pclose);
  char line[200] = "";
  if (!pipe || std::fgets(line, sizeof line, pipe.get()) == nullptr) return "not found";
  std::string text = line;
  while (std::fgets(line, sizeof line, pipe.get()) != nullptr) continue;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.find("not found") == std::string::npos ? text : "not found";
}

}  // namespace

void print_versions(const Console& console, const char* version) {
  if (!console.manner().verbose) return;
  utsname kernel{};
  ::uname(&kernel);
  console.note(
      fmt::format("version {}, {} {} {}", version, kernel.sysname, kernel.release, kernel.machine));
  if (!console.manner().trace) return;
  console.note("system: " + distribution());
  console.note(fmt::format("libraries: libnbd {}, libguestfs {}, libvirt {}, libzstd {}",
                           nbd::library_version(), appliance::Appliance::library_version(),
                           libvirt::library_version(), ZSTD_versionString()));
  for (const char* const program : {"nbdkit", "qemu-img"})
    console.note(fmt::format("{}: {}", program, output_of(program + std::string(" --version"))));
}

}  // namespace vc::tool
