#include "tests/drop_in/same_script.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/support/command_line.h"
#include "tests/support/process.h"

namespace vc::drop_in {

namespace {

using nlohmann::json;

// Joins the entries of a map. For an unallocated subcluster in an allocated cluster, qemu-img map
// reports the offset that the subcluster would have, and does not join it with its neighbours.
json joined_map(const json& entries) {
  json joined = json::array();
  for (json entry : entries) {
    const bool nobodys = entry["present"] == false;
    if (nobodys) entry.erase("offset");
    if (nobodys && !joined.empty() && joined.back()["present"] == false &&
        joined.back()["depth"] == entry["depth"])
      joined.back()["length"] =
          joined.back()["length"].get<uint64_t>() + entry["length"].get<uint64_t>();
    else
      joined.push_back(std::move(entry));
  }
  return joined;
}

void compare(const json& theirs, const json& ours, const std::string& where,
             std::vector<Difference>& out) {
  if (theirs.is_object() && ours.is_object()) {
    for (const auto& [key, value] : theirs.items()) {
      const std::string path = where.empty() ? key : where + "/" + key;
      if (!ours.contains(key))
        out.push_back({path, fmt::format("qemu-img has {}", value.dump())});
      else
        compare(value, ours[key], path, out);
    }
  } else if (theirs.is_array() && ours.is_array() && theirs.size() == ours.size()) {
    for (size_t i = 0; i < theirs.size(); ++i) compare(theirs[i], ours[i], where, out);
  } else if (theirs != ours) {
    out.push_back({where, fmt::format("qemu-img {}, we {}", theirs.dump(), ours.dump())});
  }
}

std::string with_single_blanks(const std::string& line) {
  std::istringstream words(line);
  std::string text;
  for (std::string word; words >> word;) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::vector<std::string> lines(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> all;
  for (std::string line; std::getline(stream, line);) all.push_back(with_single_blanks(line));
  return all;
}

// Returns true for sentences whose words differ here. Scripts look for the counts before them.
bool is_commentary(const std::string& line) {
  return line == "Data may be corrupted, or further writes to the image may corrupt it." ||
         line == "This means waste of disk space, but no harm to data.";
}

bool wants_json(const Words& command) {
  return std::any_of(command.begin(), command.end(),
                     [](const std::string& it) { return it.find("json") != std::string::npos; });
}

}  // namespace

std::vector<Difference> differences(const Words& command) {
  Words qemu_img = command;
  qemu_img.insert(qemu_img.begin(), "qemu-img");
  const auto theirs = support::run(qemu_img);
  const auto ours = tool_test::run_tool(command);
  std::vector<Difference> out;
  if (theirs.exit_code != ours.exit_code)
    out.push_back(
        {"exit code", fmt::format("qemu-img {}we {}", theirs.describe(), ours.describe())});
  if (wants_json(command)) {
    json their_json = json::parse(theirs.out, nullptr, false);
    if (their_json.is_discarded()) return out;
    json our_json = json::parse(ours.out, nullptr, false);
    if (our_json.is_discarded()) {
      out.push_back({"no JSON", ours.describe()});
      return out;
    }
    if (command.front() == "map") {
      their_json = joined_map(their_json);
      our_json = joined_map(our_json);
    }
    compare(their_json, our_json, "", out);
    return out;
  }
  if (theirs.exit_code != 0 && ours.exit_code == 0) return out;
  const auto our_lines = lines(ours.out);
  const std::set<std::string> said(our_lines.begin(), our_lines.end());
  for (const std::string& line : lines(tool_test::in_our_words(theirs.out)))
    if (said.count(line) == 0 && !line.empty() && !is_commentary(line))
      out.push_back({"line", line});
  return out;
}

std::string describe(const std::vector<Difference>& differences) {
  std::string text;
  for (const Difference& it : differences) text += fmt::format("{}: {}\n", it.what, it.detail);
  return text;
}

}  // namespace vc::drop_in
