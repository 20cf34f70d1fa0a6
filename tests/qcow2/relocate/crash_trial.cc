#include "tests/qcow2/relocate/crash_trial.h"

#include "tests/catch_text.h"
#include "tests/support/memory_storage.h"
#include "tests/support/raw_file.h"

namespace vc::test {

CrashTrial::CrashTrial(const std::string& path, uint64_t seed, support::Random& random)
    : random_(random), storage_(std::make_shared<CrashStorage>(support::read_file(path))) {
  free_leaks(storage_);
  states_ = states_of(storage_);
  storage_->crash_at_flushes(crashes_, seed);
}

void CrashTrial::judge_crashes(const GoOn& go_on) {
  for (Bytes& bytes : crashes_) {
    const auto crashed = std::make_shared<qcow2::MemoryStorage>("crashed", std::move(bytes));
    judge(crashed, states_, true);
    if (!random_.chance(10)) continue;
    // Clusters that may belong to a damaged table stay.
    const bool stay = free_leaks(crashed);
    const Leaks leaks = leaks_of(*crashed);
    REQUIRE(leaks.empty() != stay);
    go_on(crashed, staying_of(*crashed));
    judge(crashed, states_, stay);
    REQUIRE((leaks_of(*crashed) == leaks));
  }
  crashes_.clear();
}

void CrashTrial::judge_end(const GoOn& go_on) {
  judge_crashes(go_on);
  judge(storage_, states_, false);
}

}  // namespace vc::test
