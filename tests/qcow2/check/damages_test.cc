// Checks the list of damaged images: our figures equal qemu-img's, or the list gives the reason.
#include "tests/qcow2/check/damages.h"

#include "tests/catch.h"
#include "tests/qcow2/check/both_checks.h"
#include "tests/support/temp_directory.h"

namespace vc::checks {

TEST_CASE("each kind of damage is found, with the figures of qemu-img", "[damages]") {
  const support::TempDirectory folder;
  const auto damages = make_damages(folder.path());
  CHECK(damages.size() >= 40);
  for (const Damage& damage : damages) {
    const QemuAnswer qemu = ask_qemu(damage.path);
    const OurAnswer ours = ask_us(damage.path);
    INFO(damage.name << "\nqemu-img: " << qemu.says << "\nwe: " << ours.error << ours.says);
    CHECK(ours.exit_code == damage.our_code);
    if (damage.finds) CHECK(ours.has(*damage.finds));
    std::string differences;
    if (qemu.exit_code != ours.exit_code)
      differences = "exit code\n";
    else if (qemu.has_json && ours.error.empty())
      differences = checks::differences(qemu, ours);
    else if (qemu.has_json || ours.error.empty())
      differences = "figures\n";
    INFO("different: " << differences);
    CHECK(differences.empty() == damage.differs.empty());
  }
}

}  // namespace vc::checks
