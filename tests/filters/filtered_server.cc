#include "tests/filters/filtered_server.h"

#include <fmt/format.h>

#include <cstdlib>
#include <map>
#include <regex>
#include <stdexcept>

#include "tests/support/raw_file.h"

namespace vc::test {

namespace {

std::string must_be_set(const char* variable) {
  const char* const value = std::getenv(variable);
  if (!value) throw std::runtime_error(fmt::format("{} is not set", variable));
  return value;
}

std::string lower(std::string word) {
  for (char& c : word) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return word;
}

// A line of the log filter: "… Write id=7 offset=0x1000 count=0x200 fua=0 ..." when a request
// begins, "… ...Write id=7 return=0" when it ends.
struct Line {
  bool end = false;
  std::string id;
  std::string request;  // set at the beginning
};

std::optional<Line> parse(const std::string& line) {
  static const std::regex kForm(
      R"((connection=\d+ )(\.\.\.)?(Write|Zero|Trim|Flush) (id=\d+)(.*))");
  static const std::regex kRange(R"(offset=0x([0-9a-f]+) count=0x([0-9a-f]+))");
  std::smatch match;
  if (!std::regex_search(line, match, kForm)) return std::nullopt;
  Line parsed{match[2].matched, match[1].str() + match[4].str(), lower(match[3])};
  const std::string rest = match[5];
  std::smatch range;
  if (std::regex_search(rest, range, kRange))
    parsed.request += fmt::format(" {}+{}", std::stoull(range[1], nullptr, 16),
                                  std::stoull(range[2], nullptr, 16));
  for (const char* flag : {"trim", "fua"})
    if (rest.find(fmt::format(" {}=1", flag)) != std::string::npos)
      parsed.request += fmt::format(" {}", flag);
  return parsed;
}

std::vector<std::string> command(const std::string& name, const std::string& log,
                                 const std::vector<std::string>& beneath) {
  std::vector<std::string> words;
  if (!name.empty()) words.push_back("--filter=" + filter(name));
  words.emplace_back("--filter=log");
  words.insert(words.end(), beneath.begin(), beneath.end());
  words.push_back("logfile=" + log);
  return words;
}

}  // namespace

std::string filter(const std::string& name) {
  return fmt::format("{}/nbdkit-{}-filter.so", must_be_set("VIRT_COMPACT_FILTERS"), name);
}

support::Outcome try_filter(const std::string& name, const std::vector<std::string>& arguments) {
  auto words = support::nbdkit_command();
  words.insert(words.end(), {"-f", "-U", "-", "--filter=" + filter(name)});
  words.insert(words.end(), arguments.begin(), arguments.end());
  words.insert(words.end(), {"--run", "true"});
  support::RunOptions options;
  options.timeout = std::chrono::seconds(60);
  return support::run(words, options);
}

FilteredServer::FilteredServer(const std::string& name, const std::vector<std::string>& beneath)
    : server_(support::NbdServer::nbdkit(command(name, folder_ / "log", beneath))) {}

std::vector<std::string> FilteredServer::events() {
  const auto bytes = support::read_file(folder_ / "log");
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::map<std::string, std::string> begun;
  std::vector<std::string> events;
  for (size_t at = 0, end = 0; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
    const auto line = parse(text.substr(at, end - at));
    if (!line) continue;
    if (!line->end) begun[line->id] = line->request;
    if (at < read_) continue;
    events.push_back(line->end ? begun[line->id] + " done" : line->request);
  }
  read_ = text.rfind('\n') + 1;
  return events;
}

std::vector<std::string> FilteredServer::requests() {
  std::vector<std::string> requests;
  for (auto& it : events())
    if (!it.ends_with(" done")) requests.push_back(std::move(it));
  return requests;
}

}  // namespace vc::test
