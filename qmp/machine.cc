#include "qmp/machine.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/json_members.h"

namespace vc::qmp {

namespace {

using nlohmann::json;

// The first version in which blockdev-reopen is stable.
constexpr unsigned kOldestMajor = 6;
constexpr unsigned kOldestMinor = 1;
constexpr size_t kMostObjects = 10'000;
constexpr size_t kLongestChain = 200;

// Options in the form of blockdev-add. `file`: the node of the file.
json options_of(const Opening& how, json file) {
  json options = {
      {"driver", "qcow2"},          {"node-name", how.node},
      {"read-only", how.read_only}, {"cache", {{"direct", how.direct}, {"no-flush", how.no_flush}}},
      {"discard", "unmap"},         {"detect-zeroes", how.detect_zeroes},
      {"file", std::move(file)}};
  // Two nodes of the same file must never have different refcounts.
  if (!how.locked) options["lazy-refcounts"] = false;
  if (!how.backing.empty())
    options["backing"] = how.backing;
  else if (how.no_backing)
    options["backing"] = nullptr;
  return options;
}

// Returns the name of the file of an image that QEMU can only describe by all its options.
std::string plain_name(const std::string& name) {
  constexpr std::string_view kJson = "json:";
  if (!name.starts_with(kJson)) return name;
  const json whole = json::parse(name.begin() + kJson.size(), name.end(), nullptr,
                                 /*allow_exceptions=*/false);
  const json* options = &whole;
  while (member(*options, "file").is_object()) options = &member(*options, "file");
  return text_member(*options, "filename");
}

std::string file_node(const Opening& how) {
  return how.node + "-file";
}

}  // namespace

const std::string& Device::top() const {
  static const std::string none;
  return files.empty() ? none : files.front();
}

Result<std::unique_ptr<Machine>> Machine::open(const std::string& socket, Limits limits) {
  ASSIGN_OR_RETURN(auto client, Client::connect(socket, limits));
  if (!client) return nullptr;
  return std::unique_ptr<Machine>(new Machine(std::move(client)));
}

Result<void> Machine::order(const std::string& command, json arguments) {
  RETURN_IF_ERROR(client_->execute(command, std::move(arguments)));
  return {};
}

Result<json> Machine::list(const std::string& command, json arguments) {
  ASSIGN_OR_RETURN(json value, client_->execute(command, std::move(arguments)));
  if (!value.is_array() || value.size() > kMostObjects)
    return fail(Error::protocol(EPROTO, name() + ": has no valid answer to " + command));
  return value;
}

Result<void> Machine::check_version() {
  ASSIGN_OR_RETURN(const json value, client_->execute("query-version"));
  const uint64_t major = number_member(member(value, "qemu"), "major").value_or(0);
  const uint64_t minor = number_member(member(value, "qemu"), "minor").value_or(0);
  if (major > kOldestMajor || (major == kOldestMajor && minor >= kOldestMinor)) return {};
  return fail(Error::unsupported(
      fmt::format("{}: is version {}.{}, and --live needs {}.{}: shut the guest down, and run "
                  "virt-compact optimize on its disk",
                  name(), major, minor, kOldestMajor, kOldestMinor)));
}

Result<Machine::Activity> Machine::activity() {
  ASSIGN_OR_RETURN(const json value, client_->execute("query-status"));
  if (flag_member(value, "running")) return Activity::kRuns;
  return text_member(value, "status") == "paused" ? Activity::kPausedByUser
                                                  : Activity::kPausedOtherwise;
}

Result<bool> Machine::migrates() {
  ASSIGN_OR_RETURN(const json value, client_->execute("query-migrate"));
  const std::string status = text_member(value, "status");
  return !status.empty() && status != "none" && status != "completed" && status != "failed" &&
         status != "cancelled";
}

Result<void> Machine::stop() {
  return order("stop", json::object());
}

Result<void> Machine::resume() {
  return order("cont", json::object());
}

// A relative name is one in the folder in which QEMU was started.
std::string Machine::absolute(const std::string& name) const {
  std::string file = plain_name(name);
  if (file.empty() || file.front() == '/' || file.find(':') != std::string::npos ||
      client_->process() <= 0)
    return file;
  std::error_code error;
  const auto folder =
      std::filesystem::read_symlink(fmt::format("/proc/{}/cwd", client_->process()), error);
  return error ? file : (folder / file).string();
}

Device Machine::device_of(const json& object) const {
  Device device;
  device.name = text_member(object, "device");
  if (device.name.empty()) device.name = text_member(object, "qdev");
  const json& inserted = member(object, "inserted");
  device.root = text_member(inserted, "node-name");
  device.encrypted = flag_member(inserted, "encrypted");
  const json* image = &member(inserted, "image");
  for (size_t i = 0; image->is_object() && i < kLongestChain; ++i) {
    const std::string file = absolute(text_member(*image, "filename"));
    if (!file.empty() && (device.files.empty() || device.files.back() != file))
      device.files.push_back(file);
    image = &member(*image, "backing-image");
  }
  return device;
}

Result<std::vector<Device>> Machine::devices() {
  ASSIGN_OR_RETURN(const json found, list("query-block", json::object()));
  ASSIGN_OR_RETURN(const json counts, list("query-blockstats", json::object()));
  std::vector<Device> devices;
  for (const json& each : found) {
    if (!member(each, "inserted").is_object()) continue;
    Device device = device_of(each);
    for (const json& count : counts) {
      if (text_member(count, "device") != text_member(each, "device") ||
          text_member(count, "qdev") != text_member(each, "qdev"))
        continue;
      const json& values = member(count, "stats");
      device.writes = number_member(values, "wr_operations").value_or(0);
      device.write_nanoseconds = number_member(values, "wr_total_time_ns").value_or(0);
      device.flushes = number_member(values, "flush_operations").value_or(0);
      device.flush_nanoseconds = number_member(values, "flush_total_time_ns").value_or(0);
    }
    devices.push_back(std::move(device));
  }
  return devices;
}

Result<std::vector<Node>> Machine::nodes() {
  ASSIGN_OR_RETURN(const json found, list("query-named-block-nodes", {{"flat", true}}));
  std::vector<Node> nodes;
  for (const json& each : found) {
    Node node;
    node.name = text_member(each, "node-name");
    node.driver = text_member(each, "drv");
    node.file = absolute(text_member(each, "file"));
    node.read_only = flag_member(each, "ro");
    node.has_bitmaps =
        member(each, "dirty-bitmaps").is_array() && !member(each, "dirty-bitmaps").empty();
    node.direct = flag_member(member(each, "cache"), "direct");
    node.no_flush = flag_member(member(each, "cache"), "no-flush");
    if (const std::string how = text_member(each, "detect_zeroes"); how == "on" || how == "unmap")
      node.detect_zeroes = how;
    nodes.push_back(std::move(node));
  }
  return nodes;
}

Result<std::vector<Job>> Machine::jobs() {
  ASSIGN_OR_RETURN(const json found, list("query-jobs", json::object()));
  std::vector<Job> jobs;
  for (const json& each : found)
    jobs.push_back({text_member(each, "id"), text_member(each, "type"), text_member(each, "status"),
                    number_member(each, "current-progress").value_or(0),
                    number_member(each, "total-progress").value_or(0), text_member(each, "error")});
  return jobs;
}

Result<void> Machine::open_image(const Opening& how) {
  json file = {{"driver", "file"},
               {"node-name", file_node(how)},
               {"filename", how.path},
               {"read-only", how.read_only},
               {"locking", how.locked ? "auto" : "off"},
               {"cache", {{"direct", how.direct}, {"no-flush", how.no_flush}}},
               {"discard", "unmap"}};
  return order("blockdev-add", options_of(how, std::move(file)));
}

Result<void> Machine::change_backing(const Opening& how) {
  return order("blockdev-reopen", {{"options", json::array({options_of(how, file_node(how))})}});
}

Result<void> Machine::close(const std::string& node) {
  return order("blockdev-del", {{"node-name", node}});
}

Result<void> Machine::put_on_top(const std::string& node, const std::string& overlay) {
  return order("blockdev-snapshot", {{"node", node}, {"overlay", overlay}});
}

Result<void> Machine::start_mirror(const std::string& job, const std::string& root,
                                   const std::string& node, const std::string& target) {
  json arguments = {{"job-id", job},
                    {"device", root},
                    {"target", target},
                    {"sync", "top"},
                    {"auto-dismiss", false}};
  // Filters above the node stay.
  if (root != node) arguments["replaces"] = node;
  return order("blockdev-mirror", std::move(arguments));
}

Result<void> Machine::complete(const std::string& job) {
  return order("job-complete", {{"id", job}});
}

Result<void> Machine::cancel(const std::string& job) {
  return order("job-cancel", {{"id", job}});
}

Result<void> Machine::dismiss(const std::string& job) {
  return order("job-dismiss", {{"id", job}});
}

}  // namespace vc::qmp
