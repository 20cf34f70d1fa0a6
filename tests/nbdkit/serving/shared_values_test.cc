#include "nbdkit/serving/shared_values.h"

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/catch.h"

using namespace vc;

namespace {

using nbdkit::SharedValues;
using Made = Result<std::shared_ptr<int>>;

}  // namespace

TEST_CASE("a value is shared as long as a user exists", "[shared-values]") {
  SharedValues<std::string, int> values;
  int made = 0;
  const auto make = [&]() -> Made { return std::make_shared<int>(++made); };
  auto a = values.get("a", make).value();
  CHECK(values.get("a", make).value() == a);
  CHECK(values.get("b", make).value() != a);
  CHECK(made == 2);
  a.reset();
  CHECK(*values.get("a", make).value() == 3);
}

TEST_CASE("a value that cannot be created is not kept", "[shared-values]") {
  SharedValues<std::string, int> values;
  const auto fail = []() -> Made { return vc::fail(Error::invalid("no")); };
  CHECK_FALSE(values.get("a", fail));
  const auto made = values.get("a", []() -> Made { return std::make_shared<int>(7); });
  REQUIRE(made);
  CHECK(**made == 7);
}

TEST_CASE("concurrent users get the same value", "[shared-values]") {
  for (unsigned round = 0; round < 50; ++round) {
    SharedValues<std::string, int> values;
    constexpr unsigned kThreads = 8;
    std::vector<std::shared_ptr<int>> got(kThreads);
    std::atomic<unsigned> ready = 0;
    std::vector<std::thread> threads;
    threads.reserve(kThreads);
    for (unsigned i = 0; i < kThreads; ++i)
      threads.emplace_back([&, i] {
        ++ready;
        while (ready < kThreads) std::this_thread::yield();
        got[i] = values.get("a", []() -> Made { return std::make_shared<int>(0); }).value();
      });
    for (std::thread& it : threads) it.join();
    CHECK(std::set<std::shared_ptr<int>>(got.begin(), got.end()).size() == 1);
  }
}
