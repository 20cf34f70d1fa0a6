#include "tool/options/qemu_names.h"

#include <fmt/format.h>

#include "qcow2/format/json_name.h"
#include "tool/options/bracketed_commands.h"
#include "tool/options/formats.h"
#include "tool/options/property_list.h"

namespace vc::tool {

namespace {

using Properties = qcow2::ImageProperties;

constexpr std::string_view kFile = "file:";

bool begins_with(const std::string& text, std::string_view prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

// Removes the properties of encryption, for an image and for its backing files. Returns the IDs of
// their secrets. QEMU's names: encrypt.key-secret of a QCOW2 image, key-secret of a LUKS disk.
Result<std::vector<std::string>> take_secrets(Properties& properties) {
  std::vector<std::string> ids;
  for (auto it = properties.begin(); it != properties.end();) {
    std::string_view key = it->first;
    constexpr std::string_view kBacking = "backing.";
    while (key.starts_with(kBacking)) key.remove_prefix(kBacking.size());
    const bool secret = key == "encrypt.key-secret" || key == "key-secret";
    if (!secret && key != "encrypt.format") {
      ++it;
      continue;
    }
    if (secret)
      ids.push_back(it->second);
    else if (it->second != "luks" && it->second != "aes")
      return fail(
          Error::invalid(fmt::format("{}: '{}' is neither luks nor aes", it->first, it->second)));
    it = properties.erase(it);
  }
  return ids;
}

Result<std::string> path_of(Properties properties, std::optional<qcow2::Format>& format) {
  ASSIGN_OR_RETURN(const qcow2::NamedFile file, qcow2::named_file(std::move(properties)));
  if (!file.driver.empty()) {
    ASSIGN_OR_RETURN(format, parse_format(file.driver));
  }
  return file.path;
}

// `option`: the option that makes all names lists. `ids` receives the IDs of secrets.
Result<void> resolve_as(bool image_opts, const char* option, std::string& name,
                        std::optional<qcow2::Format>& format, std::vector<std::string>& ids) {
  if (unfold_command(name)) return {};
  if (!image_opts && !qcow2::is_json_name(name)) {
    name = plain_path(name);
    return {};
  }
  if (format)
    return fail(Error::invalid(fmt::format("'{}' names its format: omit -f, -F and -O", name)));
  auto properties = image_opts ? parse_property_list(name, option) : qcow2::parse_json_name(name);
  if (!properties) return fail(properties.error());
  ASSIGN_OR_RETURN(ids, with_context(take_secrets(*properties), name));
  ASSIGN_OR_RETURN(name, with_context(path_of(*properties, format), name));
  return {};
}

}  // namespace

void QemuNames::add_options(CLI::App& app, std::shared_ptr<crypto::KeyRing> keys) {
  keys_ = std::move(keys);
  add_switch(app, "--image-opts", image_opts_, "names have the form driver=FMT,file.filename=PATH")
      ->group(kRareOptions);
  add_object_option(app, secrets_);
}

void QemuNames::add_target_options(CLI::App& app) {
  add_switch(app, "--target-image-opts", target_image_opts_,
             "DST has the form driver=FMT,file.filename=PATH")
      ->group(kRareOptions);
}

Result<void> QemuNames::resolve(std::string& name, std::optional<qcow2::Format>& format) const {
  std::vector<std::string> ids;
  RETURN_IF_ERROR(resolve_as(image_opts_, "--image-opts", name, format, ids));
  for (const std::string& id : ids) {
    ASSIGN_OR_RETURN(auto secret, with_context(secrets_.find(id), name));
    keys_->passphrases.push_back(std::move(secret));
  }
  return {};
}

Result<void> QemuNames::resolve_target(std::string& name,
                                       std::optional<qcow2::Format>& format) const {
  std::vector<std::string> ids;
  RETURN_IF_ERROR(resolve_as(target_image_opts_, "--target-image-opts", name, format, ids));
  if (ids.empty()) return {};
  return fail(Error::unsupported(
      name + ": a secret for DST: give its encryption with -o encrypt.format=luks"));
}

std::string plain_path(const std::string& name) {
  return begins_with(name, kFile) ? name.substr(kFile.size()) : name;
}

Result<std::string> parse_snapshot_param(const std::string& text) {
  for (const std::string_view prefix : {"snapshot.id=", "snapshot.name="}) {
    if (!begins_with(text, prefix)) continue;
    std::string value = text.substr(prefix.size());
    if (value.find(",snapshot.") != std::string::npos)
      return fail(
          Error::invalid(fmt::format("'{}': give either the id or the name, not both", text)));
    return value;
  }
  return text;
}

}  // namespace vc::tool
