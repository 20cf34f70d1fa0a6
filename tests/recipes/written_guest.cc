// Makes the guest of the tests of optimize --live, or checks the disk that it has written:
// written-guest make|check FOLDER DISK
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>

#include "tests/live/live_guest.h"

using vc::live_test::GuestFiles;

namespace {

int check(const GuestFiles& guest) {
  const std::string complaint = guest.complaint();
  std::fputs(complaint.c_str(), stderr);
  return complaint.empty() ? 0 : 1;
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) return 2;
  try {
    if (std::strcmp(words[1], "check") == 0)
      return check(GuestFiles::made_before(words[2], words[3]));
    const GuestFiles guest(words[2], words[3]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "written-guest: %s\n", error.what());
    return 1;
  }
}
