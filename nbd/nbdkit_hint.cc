#include "nbd/nbdkit_hint.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>

#include "nbd/nbdkit_folders.h"

namespace vc::nbd {

namespace fs = std::filesystem;

namespace {

// The options of nbdkit whose value is the next word (nbdkit(1)).
constexpr std::array<std::string_view, 23> kWithValue{
    "-D",         "--debug",   "-e", "--export-name", "--exportname", "-g",     "--group",
    "--filter",   "-i",        "-P", "--ip-addr",     "--ipaddr",     "--port", "-p",
    "--pid-file", "--pidfile", "-t", "--threads",     "-u",           "--user", "-U",
    "--unix",     "--run"};

bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// Returns a message if nbdkit's folder lacks `name`.  Names with a slash are not searched there.
std::string missing(std::string_view name, const char* kind, const char* folder) {
  if (name.empty() || name.find('/') != std::string_view::npos) return {};
  const std::string path = fmt::format("{}/nbdkit-{}-{}.so", folder, name, kind);
  if (exists(path)) return {};
  std::string text = fmt::format("nbdkit has no {} '{}': there is no {}", kind, name, path);
  const auto built = std::string_view(kind) == "plugin" ? built_plugin(name) : std::nullopt;
  if (built) return text + fmt::format("; give the path of the built one, {}", *built);
  return text + "; install it, or give its path";
}

}  // namespace

std::optional<std::string> built_plugin(std::string_view name) {
  const char* const folder = name == "qcow2" ? "plugin" : name == "checked-nbd" ? "proxy" : nullptr;
  if (!folder) return std::nullopt;
  const std::string file = fmt::format("nbdkit-{}-plugin.so", name);
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  for (const char* const up : {"..", "../.."}) {
    const fs::path built = program.parent_path() / up / folder / file;
    if (!error && fs::exists(built, error)) return built.lexically_normal().string();
  }
  return std::nullopt;
}

std::string nbdkit_hint(const std::vector<std::string>& command) {
  if (command.empty() || fs::path(command.front()).filename() != "nbdkit") return {};
  constexpr std::string_view kFilter = "--filter=";
  for (size_t i = 1; i < command.size(); ++i) {
    const std::string_view word = command[i];
    std::string_view filter;
    if (word.starts_with(kFilter)) filter = word.substr(kFilter.size());
    if (word == "--filter" && i + 1 < command.size()) filter = command[i + 1];
    if (auto text = missing(filter, "filter", NBDKIT_FILTER_FOLDER); !text.empty()) return text;
    if (!word.starts_with('-')) return missing(word, "plugin", NBDKIT_PLUGIN_FOLDER);
    if (std::find(kWithValue.begin(), kWithValue.end(), word) != kWithValue.end()) ++i;
  }
  return {};
}

}  // namespace vc::nbd
