#include "tests/plugin/served_disk.h"
#include "tests/support/command_line.h"

#include <stdexcept>

namespace vc::test {

namespace {

std::vector<std::string> with_plugin(const std::vector<std::string>& arguments) {
  std::vector<std::string> all{tool_test::plugin()};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return all;
}

}  // namespace

support::NbdServer serve(const std::vector<std::string>& arguments) {
  return support::NbdServer::nbdkit(with_plugin(arguments));
}

bool server_ends() {
  return support::nbdkit_command().size() == 1;
}

support::Outcome try_to_serve(const std::vector<std::string>& arguments,
                              const std::string& directory) {
  std::vector<std::string> command{"nbdkit", "-f", "-U", "-"};
  const auto rest = with_plugin(arguments);
  command.insert(command.end(), rest.begin(), rest.end());
  command.insert(command.end(), {"--run", "true"});
  support::RunOptions options;
  options.timeout = std::chrono::seconds(60);
  options.directory = directory;
  return support::run(command, options);
}

void qemu_img(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{"qemu-img"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  support::run_ok(command);
}

void qemu_io(const std::string& image, const std::vector<std::string>& commands) {
  std::vector<std::string> command{"qemu-io", "-f", "qcow2"};
  for (const std::string& it : commands) command.insert(command.end(), {"-c", it});
  command.push_back(image);
  support::run_ok(command);
}

}  // namespace vc::test
