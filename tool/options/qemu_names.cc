#include "tool/options/qemu_names.h"

#include <fmt/format.h>

#include "qcow2/format/json_name.h"
#include "tool/options/bracketed_commands.h"
#include "tool/options/formats.h"

namespace vc::tool {

namespace {

using Properties = qcow2::ImageProperties;

constexpr std::string_view kFile = "file:";

bool begins_with(const std::string& text, std::string_view prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

// Parses "driver=qcow2,file.filename=a,,b.qcow2": a doubled comma is part of the value.
Result<Properties> parse_list(const std::string& list, const char* option) {
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
      return fail(Error::invalid(fmt::format("{}: '{}' is not KEY=VALUE", option, word)));
    properties[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return properties;
}

Result<std::string> path_of(Properties properties, std::optional<qcow2::Format>& format) {
  ASSIGN_OR_RETURN(const qcow2::NamedFile file, qcow2::named_file(std::move(properties)));
  if (!file.driver.empty()) {
    ASSIGN_OR_RETURN(format, parse_format(file.driver));
  }
  return file.path;
}

// `option`: the option that makes all names lists.
Result<void> resolve_as(bool image_opts, const char* option, std::string& name,
                        std::optional<qcow2::Format>& format) {
  if (unfold_command(name)) return {};
  if (!image_opts && !qcow2::is_json_name(name)) {
    name = plain_path(name);
    return {};
  }
  if (format)
    return fail(Error::invalid(fmt::format("'{}' names its format: omit -f, -F and -O", name)));
  const auto properties = image_opts ? parse_list(name, option) : qcow2::parse_json_name(name);
  if (!properties) return fail(properties.error());
  ASSIGN_OR_RETURN(name, with_context(path_of(*properties, format), name));
  return {};
}

}  // namespace

void QemuNames::add_options(CLI::App& app) {
  add_switch(app, "--image-opts", image_opts_, "names have the form driver=FMT,file.filename=PATH")
      ->group(kRareOptions);
  app.add_option("--object", object_, "accepted and ignored: there are no secrets")
      ->type_name("OBJECT")
      ->take_last()
      ->group(kRareOptions);
}

void QemuNames::add_target_options(CLI::App& app) {
  add_switch(app, "--target-image-opts", target_image_opts_,
             "DST has the form driver=FMT,file.filename=PATH")
      ->group(kRareOptions);
}

Result<void> QemuNames::resolve(std::string& name, std::optional<qcow2::Format>& format) const {
  return resolve_as(image_opts_, "--image-opts", name, format);
}

Result<void> QemuNames::resolve_target(std::string& name,
                                       std::optional<qcow2::Format>& format) const {
  return resolve_as(target_image_opts_, "--target-image-opts", name, format);
}

std::string plain_path(const std::string& name) {
  return begins_with(name, kFile) ? name.substr(kFile.size()) : name;
}

Result<std::string> parse_snapshot_param(const std::string& text) {
  for (const std::string_view prefix : {"snapshot.id=", "snapshot.name="}) {
    if (!begins_with(text, prefix)) continue;
    const std::string value = text.substr(prefix.size());
    if (value.find(",snapshot.") != std::string::npos)
      return fail(
          Error::invalid(fmt::format("'{}': give either the id or the name, not both", text)));
    return value;
  }
  return text;
}

}  // namespace vc::tool
