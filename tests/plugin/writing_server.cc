#include "tests/plugin/writing_server.h"

#include <chrono>
#include <csignal>
#include <stdexcept>
#include <thread>

#include "tests/plugin/served_disk.h"
#include "tests/support/command_line.h"

namespace vc::test {

namespace {

std::vector<std::string> words(const std::vector<std::string>& parameters,
                               std::vector<std::string> all) {
  all.emplace_back("-Dqcow2.stats=1");
  all.push_back(tool_test::plugin());
  all.insert(all.end(), parameters.begin(), parameters.end());
  return all;
}

}  // namespace

WritingServer::WritingServer(const std::vector<std::string>& parameters,
                             const std::vector<std::string>& options)
    : server_(support::NbdServer::nbdkit(words(parameters, options))) {}

void WritingServer::stop() {
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::seconds(server_ends() ? 60 : 20);
  ::kill(pid(), SIGTERM);
  while (server_.process().running()) {
    // This is the plugin's last message. After it, nbdkit with a sanitizer may hang at its exit.
    if (!server_ends() && log().find("shrank the file by") != std::string::npos) return kill();
    // A server that never wrote prints no such message.
    if (!server_ends() && std::chrono::steady_clock::now() > deadline) return kill();
    if (std::chrono::steady_clock::now() > deadline)
      throw std::runtime_error("the server does not end: " + log());
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace vc::test
