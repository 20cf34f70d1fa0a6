#include "qcow2/format/json_name.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace vc::qcow2 {

namespace {

constexpr std::string_view kPrefix = "json:";

std::string take(ImageProperties& properties, const std::string& key) {
  const auto found = properties.find(key);
  if (found == properties.end()) return {};
  std::string value = std::move(found->second);
  properties.erase(found);
  return value;
}

bool is_file_driver(const std::string& driver) {
  return driver == "file" || driver == "host_device";
}

}  // namespace

bool is_json_name(std::string_view name) {
  return name.substr(0, kPrefix.size()) == kPrefix;
}

Result<ImageProperties> parse_json_name(std::string_view name) {
  const auto json = nlohmann::json::parse(name.substr(kPrefix.size()), nullptr, false);
  if (!json.is_object())
    return fail(Error::invalid(fmt::format("'{}' is not a JSON object", name)));
  ImageProperties properties;
  const auto put = [&](const std::string& key, const nlohmann::json& value) {
    properties[key] = value.is_string()
                          ? value.get<std::string>()
                          : value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  for (const auto& [key, value] : json.items()) {
    if (!value.is_object())
      put(key, value);
    else
      for (const auto& [inner, of_it] : value.items()) put(fmt::format("{}.{}", key, inner), of_it);
  }
  return properties;
}

Result<NamedFile> named_file(ImageProperties properties) {
  const std::string driver = take(properties, "driver");
  const std::string protocol = take(properties, "file.driver");
  NamedFile file;
  file.path = take(properties, "file.filename");
  if (file.path.empty()) file.path = take(properties, "filename");
  for (const std::string& it : {protocol, driver})
    if (it == "nbd") return fail(Error::unsupported("driver 'nbd': give an NBD URI instead"));
  if (!protocol.empty() && !is_file_driver(protocol))
    return fail(
        Error::unsupported(fmt::format("file.driver '{}': only files are supported", protocol)));
  if (!properties.empty())
    return fail(Error::invalid(
        fmt::format("'{}' is not supported: only driver, file.driver and file.filename are",
                    properties.begin()->first)));
  if (file.path.empty()) return fail(Error::invalid("file.filename is missing"));
  // A file without a format on top of it is a raw disk.
  file.driver = is_file_driver(driver) ? "raw" : driver;
  return file;
}

std::string json_driver(std::string_view name) {
  if (!is_json_name(name)) return {};
  const auto properties = parse_json_name(name);
  if (!properties) return {};
  const auto file = named_file(*properties);
  return file ? file->driver : std::string();
}

}  // namespace vc::qcow2
