// Runs every NBD command with servers that disconnect, stop answering or lie, in each phase. The
// result is a timely error or the right result: no crash, and no damaged disk.

#include "tests/support/lying_server.h"

#include <fmt/format.h>

#include <functional>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/many_cases.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using support::Complaints;
using support::in_parallel;
using support::Lie;
using support::LyingServer;
using support::Outcome;
using support::spoils_reads;
using tool_test::run_tool;

namespace {

using Bytes = std::vector<std::byte>;

constexpr size_t kSize = 3 << 20;

// Random data, zeros that the server reports as data (each 4096 bytes have one other byte), and
// holes.
Bytes some_disk() {
  Bytes bytes(kSize);
  for (size_t i = 0; i < 1 << 20; ++i) bytes[i] = std::byte(i * 2654435761u >> 13);
  for (size_t i = 2 << 20; i < kSize; i += 4096) bytes[i] = std::byte{1};
  return bytes;
}

struct Client {
  const char* name;
  bool writes;
  // Runs the command. Returns what is wrong with its behaviour; empty: nothing.
  std::function<std::string(LyingServer& server, const support::TempDirectory& folder)> run;
};

const Bytes& disk() {
  static const Bytes bytes = some_disk();
  return bytes;
}

std::string ended_well(const Outcome& outcome, const LyingServer& server) {
  if (outcome.signal != 0 || outcome.timed_out || outcome.exit_code < 0)
    return "crashed or hung: " + outcome.describe();
  if (outcome.exit_code != 0 && outcome.err.find(server.uri()) == std::string::npos)
    return "the error does not name the server: " + outcome.describe();
  return {};
}

std::vector<Client> clients() {
  const auto words = [](std::vector<std::string> first, const std::vector<std::string>& rest) {
    first.insert(first.end(), rest.begin(), rest.end());
    return first;
  };
  const std::vector<std::string> tuning{"--timeout=1", "--retries=1"};
  return {
      {"copy from", false,
       [=](LyingServer& server, const support::TempDirectory& folder) {
         const auto outcome =
             run_tool(words({"copy", "-q", "-O", "raw", server.uri(), folder / "copy"}, tuning));
         if (outcome.ok() && support::read_file(folder / "copy") != disk())
           return std::string("another disk was copied");
         return ended_well(outcome, server);
       }},
      {"copy to", true,
       [=](LyingServer& server, const support::TempDirectory& folder) {
         Bytes other = disk();
         std::rotate(other.begin(), other.begin() + 12345, other.end());
         support::write_file(folder / "source", other);
         const auto outcome = run_tool(words(
             {"copy", "-q", "-f", "raw", "--verify", folder / "source", server.uri()}, tuning));
         if (outcome.ok() && server.disk() != other) return std::string("not copied");
         return ended_well(outcome, server);
       }},
      {"measure", false,
       [=](LyingServer& server, const support::TempDirectory&) {
         return ended_well(run_tool(words({"measure", "-q", server.uri()}, tuning)), server);
       }},
      {"space", false,
       [=](LyingServer& server, const support::TempDirectory&) {
         return ended_well(run_tool(words({"space", "-q", server.uri()}, tuning)), server);
       }},
      {"punch", true,
       [=](LyingServer& server, const support::TempDirectory&) {
         const auto outcome = run_tool(words({"punch", "-q", "-S", "512", server.uri()}, tuning));
         if (server.disk() != disk()) return std::string("the disk has changed");
         return ended_well(outcome, server);
       }},
      {"compare", false,
       [=](LyingServer& server, const support::TempDirectory& folder) {
         support::write_file(folder / "same", disk());
         const auto outcome =
             run_tool(words({"compare", "-q", "-f", "raw", folder / "same", server.uri()}, tuning));
         if (outcome.exit_code == 1) return "they are the same: " + outcome.describe();
         return ended_well(outcome, server);
       }},
      {"bench", false,
       [=](LyingServer& server, const support::TempDirectory&) {
         return ended_well(
             run_tool({"bench", "-q", "-c", "200", "--connections=2", "--timeout=1", server.uri()}),
             server);
       }},
      {"map", false,
       [=](LyingServer& server, const support::TempDirectory&) {
         return ended_well(run_tool({"map", "-q", "--timeout=1", server.uri()}), server);
       }},
      {"info", false,
       [=](LyingServer& server, const support::TempDirectory&) {
         return ended_well(run_tool({"info", "-q", "--timeout=1", server.uri()}), server);
       }},
  };
}

}  // namespace

TEST_CASE("a correct server causes no errors", "[lying_server]") {
  for (const bool structured : {false, true})
    for (const Client& client : clients()) {
      INFO(client.name << ", " << structured);
      const support::TempDirectory folder;
      LyingServer server({.structured = structured}, disk());
      CHECK(client.run(server, folder) == "");
    }
}

TEST_CASE("no server can crash, hang or deceive a command", "[lying_server]") {
  const auto lies = support::all_lies();
  const auto all = clients();
  struct Case {
    Lie lie;
    const Client* client;
    unsigned honest;
  };
  std::vector<Case> cases;
  for (const Lie lie : lies)
    for (const Client& client : all) {
      cases.push_back({lie, &client, 0});
      // Writing clients get more cases.
      if (lie >= Lie::kLeaveAtCommand && client.writes) cases.push_back({lie, &client, 3});
    }
  Complaints complaints;
  in_parallel(cases.size(), [&](size_t at) {
    const auto& [lie, client, honest] = cases[at];
    const std::string name = fmt::format("{}, {} ({}): ", client->name, to_string(lie), honest);
    try {
      const support::TempDirectory folder;
      LyingServer server({.lie = lie, .honest = honest, .multi_conn = at % 3 != 0}, disk());
      const auto wrong = client->run(server, folder);
      if (!wrong.empty()) complaints.add(name + wrong);
    } catch (const std::exception& exception) {
      complaints.add(name + exception.what());
    }
  });
  CHECK(complaints.text() == "");
}

TEST_CASE("answers that do not cover the request are errors", "[lying_server]") {
  Complaints complaints;
  const auto lies = support::all_lies();
  const auto check = [&](Lie lie, const char* name, std::vector<std::string> command) {
    const support::TempDirectory folder;
    LyingServer server({.lie = lie}, disk());
    command.insert(command.end(), {server.uri(), "--timeout=1"});
    if (command[0] == "copy") command.push_back(folder / "copy");
    const auto outcome = run_tool(command);
    if (outcome.exit_code <= 0 || outcome.exit_code > 4)
      complaints.add(fmt::format("{}, {}: {}", name, to_string(lie), outcome.describe()));
    if (server.disk() != disk())
      complaints.add(fmt::format("{}, {}: the disk has changed", name, to_string(lie)));
  };
  in_parallel(lies.size(), [&](size_t at) {
    const Lie lie = lies[at];
    if (!spoils_reads(lie)) return;
    check(lie, "copy", {"copy", "-q", "-O", "raw", "--retries=0"});
    check(lie, "punch", {"punch", "-q", "--retries=0"});
    check(lie, "bench", {"bench", "-q", "-c", "100"});
  });
  CHECK(complaints.text() == "");
}

TEST_CASE("verification reconnects as many times as --retries allows", "[lying_server]") {
  const support::TempDirectory folder;
  support::write_file(folder / "source", disk());
  for (const bool retries : {false, true}) {
    // Only reads of the verification get a wrong answer.
    LyingServer server({.lie = Lie::kLeaveInPayload, .most_lies = 1}, Bytes(kSize));
    const auto outcome = run_tool({"copy", "-q", "-f", "raw", "--verify", folder / "source",
                                   server.uri(), retries ? "--retries=3" : "--retries=0"});
    INFO(outcome.describe());
    CHECK(outcome.ok() == retries);
    CHECK(server.lies() >= 1);
    CHECK(server.disk() == disk());
  }
}

TEST_CASE("a trim believes no server, waits for none, and claims no success", "[lying_server]") {
  // Without data no appliance boots. Each server is only asked the questions before that.
  const auto trim = [](const LyingServer& server) {
    support::RunOptions how;
    how.environment = {"LIBGUESTFS_PATH=/nowhere"};
    return run_tool({"trim", "--timeout=1", server.uri()}, how);
  };
  {
    const LyingServer honest({}, Bytes(kSize));
    const auto outcome = trim(honest);
    INFO(outcome.describe());
    CHECK(outcome.ok());
    CHECK_THAT(outcome.out, Catch::Contains("nothing to trim"));
  }
  Complaints complaints;
  const auto lies = support::all_lies();
  // The first two commands are reads on our own connection. The proxy then sends a flush and a
  // block status, and both again at the end. By then, a server that reports nothing does no harm.
  constexpr unsigned kReads = 2;
  constexpr size_t kMoments = 8;
  in_parallel(lies.size() * kMoments, [&](size_t at) {
    const Lie lie = lies[at / kMoments];
    const auto honest = static_cast<unsigned>(at % kMoments);
    LyingServer server({.lie = lie, .honest = honest, .multi_conn = at % 2 == 0}, Bytes(kSize));
    const auto outcome = trim(server);
    std::string wrong;
    if (outcome.signal != 0 || outcome.timed_out || outcome.exit_code < 0)
      wrong = "crashed or hung";
    if (outcome.exit_code != 0 && outcome.err.find("virt-compact: error: ") == std::string::npos)
      wrong = "no error is told";
    if (outcome.ok() && spoils_reads(lie) && honest < kReads) wrong = "it believed the server";
    if (server.disk() != Bytes(kSize)) wrong = "the disk has changed";
    if (!wrong.empty())
      complaints.add(
          fmt::format("{} ({}): {}: {}", to_string(lie), honest, wrong, outcome.describe()));
  });
  CHECK(complaints.text() == "");
}
