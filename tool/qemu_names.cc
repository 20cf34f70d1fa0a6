#include "tool/qemu_names.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "tool/bracketed_commands.h"
#include "tool/formats.h"

namespace tool {

using qcow2::Error;
using qcow2::fail;
using qcow2::Result;

namespace {

// Of an image, by QEMU's dotted names.
using Properties = std::map<std::string, std::string>;

constexpr std::string_view kFile = "file:";
constexpr std::string_view kJson = "json:";

bool begins_with(const std::string& text, std::string_view prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

// "driver=qcow2,file.filename=a,,b.qcow2": two commas are one of the value.
Result<Properties> parse_list(const std::string& list) {
  Properties properties;
  for (size_t at = 0; at < list.size();) {
    std::string word;
    for (; at < list.size(); ++at) {
      if (list[at] == ',' && (at + 1 == list.size() || list[at + 1] != ',')) break;
      if (list[at] == ',') ++at;
      word += list[at];
    }
    ++at;
    const size_t equals = word.find('=');
    if (equals == std::string::npos)
      return fail(Error::invalid(fmt::format("--image-opts: '{}' is not KEY=VALUE", word)));
    properties[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return properties;
}

Result<Properties> parse_json(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return fail(Error::invalid(fmt::format("'{}' is no JSON object", text)));
  Properties properties;
  const auto put = [&](const std::string& key, const nlohmann::json& value) {
    properties[key] = value.is_string() ? value.get<std::string>() : value.dump();
  };
  for (const auto& [key, value] : json.items()) {
    if (!value.is_object())
      put(key, value);
    else
      for (const auto& [inner, text_of] : value.items()) put(key + "." + inner, text_of);
  }
  return properties;
}

std::string take(Properties& properties, const std::string& key) {
  const auto found = properties.find(key);
  if (found == properties.end()) return {};
  std::string value = std::move(found->second);
  properties.erase(found);
  return value;
}

Result<std::string> path_of(Properties properties, std::optional<qcow2::Format>& format) {
  const std::string driver = take(properties, "driver");
  std::string path = take(properties, "file.filename");
  if (path.empty()) path = take(properties, "filename");
  const std::string protocol = take(properties, "file.driver");
  if (!properties.empty())
    return fail(
        Error::invalid(fmt::format("'{}' is not understood here: driver, file.driver and "
                                   "file.filename are",
                                   properties.begin()->first)));
  for (const std::string& it : {protocol, driver})
    if (it == "nbd") return fail(Error::unsupported("driver 'nbd': give an NBD URI instead"));
  if (!protocol.empty() && protocol != "file" && protocol != "host_device")
    return fail(Error::unsupported(fmt::format("file.driver '{}': only files are read", protocol)));
  if (path.empty()) return fail(Error::invalid("no file.filename is given"));
  // A file without a format on top of it is a raw disk.
  if (driver == "file" || driver == "host_device")
    format = qcow2::Format::kRaw;
  else if (!driver.empty()) {
    ASSIGN_OR_RETURN(format, parse_format(driver));
  }
  return path;
}

}  // namespace

void QemuNames::add_options(CLI::App& app) {
  add_switch(app, "--image-opts", image_opts_, "names are driver=FMT,file.filename=PATH")
      ->group(kRareOptions);
  app.add_option("--object", object_, "taken, and not needed: there are no secrets")
      ->type_name("OBJECT")
      ->take_last()
      ->group(kRareOptions);
}

Result<void> QemuNames::resolve(std::string& name, std::optional<qcow2::Format>& format) const {
  if (unfold_command(name)) return {};
  const bool json = !image_opts_ && begins_with(name, kJson);
  if (!image_opts_ && !json) {
    if (begins_with(name, kFile)) name.erase(0, kFile.size());
    return {};
  }
  if (format)
    return fail(Error::invalid(fmt::format("'{}' names its format: without -f and -F", name)));
  const auto properties = json ? parse_json(name.substr(kJson.size())) : parse_list(name);
  if (!properties) return fail(properties.error());
  ASSIGN_OR_RETURN(name, qcow2::with_context(path_of(*properties, format), name));
  return {};
}

Result<std::string> parse_snapshot_param(const std::string& text) {
  for (const std::string_view prefix : {"snapshot.id=", "snapshot.name="}) {
    if (!begins_with(text, prefix)) continue;
    const std::string value = text.substr(prefix.size());
    if (value.find(",snapshot.") != std::string::npos)
      return fail(Error::invalid(fmt::format("'{}': either the id or the name is enough", text)));
    return value;
  }
  return text;
}

}  // namespace tool
