// The connection to QEMU's monitor, against a server that may send anything.
#include "qmp/client.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <functional>
#include <stdexcept>
#include <thread>

#include "qmp/machine.h"
#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using qmp::Client;
using qmp::Limits;

namespace {

// Accepts one client, and lets `talk` talk to it.
class FakeQemu {
 public:
  using Talk = std::function<void(int)>;
  explicit FakeQemu(Talk talk)
      : listening_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), talk_(std::move(talk)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path().c_str(), sizeof address.sun_path - 1);
    if (::bind(listening_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
            0 ||
        ::listen(listening_.get(), 1) != 0)
      throw std::runtime_error("no socket");
    thread_ = std::thread([this] {
      const Descriptor client(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (client) talk_(client.get());
      // Keeps the connection until the client ends it.
      char byte = 0;
      while (::recv(client.get(), &byte, 1, 0) > 0) {
      }
    });
  }
  FakeQemu(const FakeQemu&) = delete;
  FakeQemu& operator=(const FakeQemu&) = delete;
  ~FakeQemu() {
    ::shutdown(listening_.get(), SHUT_RDWR);
    thread_.join();
  }
  std::string path() const { return folder_ / "qmp"; }

 private:
  support::TempDirectory folder_;
  Descriptor listening_;
  Talk talk_;
  std::thread thread_;
};

void say(int client, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t put = ::send(client, text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (put <= 0) return;
    at += static_cast<size_t>(put);
  }
}

std::string hear(int client) {
  std::string line;
  char byte = 0;
  while (::recv(client, &byte, 1, 0) == 1 && byte != '\n') line += byte;
  return line;
}

const std::string kGreeting = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

// Greets, accepts the capabilities, and answers the next command with `answer`.
FakeQemu::Talk answering(const std::string& answer) {
  return [answer](int client) {
    say(client, kGreeting);
    hear(client);
    say(client, "{\"return\": {}, \"id\": 1}\n");
    hear(client);
    say(client, answer);
  };
}

Limits short_limits() {
  Limits limits;
  limits.greeting = limits.answer = std::chrono::milliseconds(300);
  limits.line = 100'000;
  return limits;
}

std::string greeting_error(const std::string& greeting) {
  FakeQemu qemu([&](int client) { say(client, greeting); });
  const auto client = Client::connect(qemu.path(), short_limits());
  return client ? "accepted" : client.error().message();
}

std::string answer_error(const std::string& answer) {
  FakeQemu qemu(answering(answer));
  const auto client = Client::connect(qemu.path(), short_limits());
  REQUIRE(client);
  const auto value = (*client)->execute("query-status");
  if (value) return "accepted";
  // After a wrong answer, the connection is not used again.
  if (value.error().errnum() != EIO)
    CHECK_THAT((*client)->execute("stop").error().message(),
               Catch::Contains("an earlier command had no valid answer"));
  return value.error().message();
}

}  // namespace

TEST_CASE("a socket on which nothing listens has no QEMU", "[qmp]") {
  const support::TempDirectory folder;
  const auto none = Client::connect(folder / "none");
  REQUIRE(none);
  CHECK(*none == nullptr);
  const auto long_name = Client::connect(folder / std::string(200, 'x'));
  REQUIRE_FALSE(long_name);
  CHECK_THAT(long_name.error().message(), Catch::Contains("at most 107 bytes"));
}

TEST_CASE("a server that is no QEMU is refused", "[qmp]") {
  CHECK_THAT(greeting_error(""), Catch::Contains("does not greet"));
  CHECK_THAT(greeting_error("{\"QMP\": {}"), Catch::Contains("does not greet"));
  CHECK_THAT(greeting_error("SSH-2.0-x\r\n"), Catch::Contains("not a JSON object"));
  CHECK_THAT(greeting_error("{}\n"), Catch::Contains("no QMP socket"));
  CHECK_THAT(greeting_error(std::string(200'000, ' ')), Catch::Contains("more than 100000 bytes"));
  CHECK_THAT(greeting_error(kGreeting), Catch::Contains("does not answer"));
}

TEST_CASE("wrong answers of QEMU are errors", "[qmp]") {
  CHECK(answer_error("{\"return\": {}, \"id\": 2}\n") == "accepted");
  CHECK(answer_error("{\"event\": \"STOP\"}\n{\"return\": {}, \"id\": 2}\n") == "accepted");
  CHECK_THAT(answer_error("{\"return\": {}, \"id\": 1}\n"), Catch::Contains("another command"));
  CHECK_THAT(answer_error("{\"return\": {}}\n"), Catch::Contains("another command"));
  CHECK_THAT(answer_error("{\"id\": 2}\n"), Catch::Contains("has no answer to query-status"));
  CHECK_THAT(answer_error("[]\n"), Catch::Contains("not a JSON object"));
  CHECK_THAT(answer_error("\xff\xfe\n"), Catch::Contains("not a JSON object"));
  CHECK_THAT(answer_error(std::string(50'000, '[') + "\n"), Catch::Contains("not a JSON object"));
  CHECK_THAT(answer_error("{\"id\": 2, \"return\": " + std::string(200'000, ' ')),
             Catch::Contains("more than 100000 bytes"));
  CHECK_THAT(answer_error(""), Catch::Contains("does not answer"));
  const std::string error = answer_error(
      "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u001b[2Jway\"}, \"id\": 2}\n");
  CHECK_THAT(error, Catch::Contains("query-status: no\\x1b[2Jway"));
  CHECK_THAT(answer_error("{\"error\": 7, \"id\": 2}\n"), Catch::Contains("query-status"));
  std::string deep;
  for (unsigned i = 0; i < 10'000; ++i) deep += "{\"a\":";
  CHECK_THAT(answer_error(deep + "1" + std::string(10'000, '}') + "\n"),
             Catch::Contains("another command"));
}

TEST_CASE("events without end do not prolong the wait for an answer", "[qmp]") {
  FakeQemu qemu([](int client) {
    say(client, kGreeting);
    hear(client);
    say(client, "{\"return\": {}, \"id\": 1}\n");
    const std::string event = "{\"event\": \"RTC_CHANGE\"}\n";
    while (::send(client, event.data(), event.size(), MSG_NOSIGNAL) > 0) {
    }
  });
  {
    auto client = Client::connect(qemu.path(), short_limits());
    REQUIRE(client);
    const auto value = (*client)->execute("query-status");
    REQUIRE_FALSE(value);
    CHECK_THAT(value.error().message(), Catch::Contains("does not answer"));
  }
}

TEST_CASE("a QEMU that is too old is refused", "[qmp]") {
  const auto talk = [](const std::string& version) {
    return answering("{\"return\": {\"qemu\": " + version + "}, \"id\": 2}\n");
  };
  const auto message = [&](const std::string& version) {
    FakeQemu qemu(talk(version));
    auto machine = qmp::Machine::open(qemu.path(), short_limits());
    REQUIRE(machine);
    REQUIRE(*machine);
    const auto checked = (*machine)->check_version();
    return checked ? "accepted" : checked.error().message();
  };
  CHECK_THAT(message("{\"major\": 5, \"minor\": 2}"), Catch::Contains("is version 5.2"));
  CHECK_THAT(message("{\"major\": 6, \"minor\": 0}"),
             Catch::Contains("is version 6.0, and --live needs 6.1"));
  CHECK(message("{\"major\": 6, \"minor\": 1}") == "accepted");
  CHECK(message("{\"major\": 10, \"minor\": 0}") == "accepted");
  CHECK(message("{}") != "accepted");
  CHECK(message("{\"major\": \"10\", \"minor\": null}") != "accepted");
  CHECK(message("7") != "accepted");

  // The command changes nothing.
  const support::TempDirectory folder;
  support::write_file(folder / "disk.qcow2", std::string("x"));
  FakeQemu qemu(talk("{\"major\": 6, \"minor\": 0, \"micro\": 1}"));
  const auto refused =
      tool_test::run_tool({"optimize", "--live", "--qmp", qemu.path(), folder / "disk.qcow2"});
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Catch::Contains("needs 6.1: shut the guest down"));
  CHECK(support::list_directory(folder.path()) == std::vector<std::string>{"disk.qcow2"});
}

TEST_CASE("lists of QEMU with wrong values are harmless", "[qmp]") {
  const auto devices = [](const std::string& list) {
    FakeQemu qemu([&](int client) {
      say(client, kGreeting);
      for (unsigned id = 1; id <= 3; ++id) {
        if (hear(client).empty()) return;
        say(client,
            "{\"return\": " + (id == 1 ? "{}" : list) + ", \"id\": " + std::to_string(id) + "}\n");
      }
    });
    auto machine = qmp::Machine::open(qemu.path(), short_limits());
    REQUIRE(machine);
    REQUIRE(*machine);
    const auto found = (*machine)->devices();
    return found ? static_cast<int>(found->size()) : -1;
  };
  CHECK(devices("{}") == -1);
  CHECK(devices("7") == -1);
  CHECK(devices("[]") == 0);
  CHECK(devices("[7, null, {}, {\"inserted\": 3}]") == 0);
  CHECK(devices("[{\"device\": 1, \"inserted\": {\"image\": {\"filename\": \"json:{]\", "
                "\"backing-image\": [1]}, \"cache\": 2}, \"stats\": -1}]") == 1);
  CHECK(devices("[{\"inserted\": {\"image\": {\"filename\": "
                "\"json:{\\\"file\\\": {\\\"file\\\": 1}}\"}}}]") == 1);
}
