// Each step of a live run is on the disk before the next one, so that a loss of power at any moment
// leaves one of the states of the journal.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>

#include "tests/catch_text.h"
#include "tests/live/hand_qemu.h"
#include "tests/live/written_disk.h"
#include "tests/support/command_line.h"

using namespace vc;

using live_test::HandQemu;
using live_test::stop_at;
using live_test::TestDomain;
using live_test::WrittenDisks;

namespace fs = std::filesystem;

namespace {

using Lines = std::vector<std::string>;

// Returns the first action of a record of record_calls.cc that could survive a loss of power while
// an earlier one is lost. Empty: there is none.
std::string complaint(const Lines& lines, const std::string& journal) {
  std::set<std::string> files;  // inodes with content that is not on the disk
  std::set<std::string> names;  // names that have changed, not on the disk
  std::string journal_inode;
  const auto wrong = [&](size_t i) {
    return fmt::format("{} (line {}) with unflushed files {{{}}} and names {{{}}}", lines[i], i + 1,
                       fmt::join(files, ", "), fmt::join(names, ", "));
  };
  for (size_t i = 0; i < lines.size(); ++i) {
    std::istringstream words(lines[i]);
    std::string what;
    std::string name;
    std::string inode;
    words >> what >> name >> inode;
    if (what == "write") {
      // The record of a step tells that the step before is complete.
      if (name == journal_inode && (!names.empty() || !files.empty())) return wrong(i);
      files.insert(name);
    } else if (what == "sync" && name == "folder") {
      names.clear();
    } else if (what == "sync") {
      files.erase(name);
    } else if (what == "name" && name == journal) {
      journal_inode = inode;
    } else if (what == "name" || what == "remove") {
      // The record comes before the step, and the content of a file before its name.
      if (files.count(journal_inode) > 0 || files.count(inode) > 0) return wrong(i);
      if (name == journal && !names.empty()) return wrong(i);
      names.insert(name);
    } else if (what == "call") {
      if (!files.empty() || !names.empty()) return wrong(i);
    } else {
      return "unknown: " + lines[i];
    }
  }
  return files.empty() && names.empty() ? "" : wrong(lines.size() - 1);
}

// Runs the command for a disk in `folder`, and returns the record.
Lines recorded(const std::vector<std::string>& command, const std::string& folder,
               const std::string& journal) {
  const char* const library = std::getenv("VIRT_COMPACT_RECORD_CALLS");
  if (!library) throw std::runtime_error("VIRT_COMPACT_RECORD_CALLS is not set");
  const support::TempDirectory temporary;
  const char* const options = std::getenv("ASAN_OPTIONS");
  support::RunOptions how;
  how.timeout = live_test::kLongestWait;
  how.environment = {
      std::string("LD_PRELOAD=") + library,
      // AddressSanitizer wants to be the first library.
      fmt::format("ASAN_OPTIONS={}:verify_asan_link_order=0", options ? options : ""),
      "VIRT_COMPACT_RECORD=" + temporary / "record", "VIRT_COMPACT_RECORD_FOLDER=" + folder};
  Lines lines;
  // A run that was stopped has left it.
  struct stat status {};
  if (::stat((folder + "/" + journal).c_str(), &status) == 0)
    lines.push_back(fmt::format("name {} {}", journal, status.st_ino));
  const auto done = tool_test::run_tool(command, how);
  INFO(done.describe());
  CHECK(done.ok());
  std::ifstream file(temporary / "record");
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

// Checks that the record has `expected`, too: a record without them would prove nothing.
void check(const Lines& lines, const std::string& journal, const Lines& expected) {
  CHECK(complaint(lines, journal) == "");
  for (const std::string& begin : expected) {
    CAPTURE(begin);
    CHECK(std::any_of(lines.begin(), lines.end(),
                      [&](const std::string& line) { return line.starts_with(begin); }));
  }
}

}  // namespace

TEST_CASE("the judge of records finds what a loss of power could reorder", "[live]") {
  const Lines good{"name j 1", "write 1",     "sync 1",      "sync folder", "write 2",
                   "sync 2",   "name disk 2", "sync folder", "write 1",     "sync 1",
                   "call x",   "remove j",    "sync folder"};
  CHECK(complaint(good, "j") == "");
  // Each flush is needed.
  for (size_t i = 0; i < good.size(); ++i) {
    if (!good[i].starts_with("sync")) continue;
    CAPTURE(i);
    Lines less = good;
    less.erase(less.begin() + static_cast<std::ptrdiff_t>(i));
    // A later flush of the folder may do for the journal's name.
    if (i != 3) CHECK(complaint(less, "j") != "");
  }
}

TEST_CASE("each step of a live run is flushed before the next one", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  const std::string folder = fs::path(domain.disk()).parent_path();
  const std::string journal = ".disk0.qcow2.journal";
  const std::vector<std::string> run{"optimize", "--connect", daemon.uri(), "--live",
                                     "--no-fstrim"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), run.begin(), run.end());
    return more;
  };
  const Lines begin{"name " + journal,         "name disk0.qcow2.bak",
                    "name .disk0.qcow2.live1", "call virDomainSnapshotCreateXML",
                    "call virDomainBlockCopy", "call virDomainBlockJobAbort",
                    "remove " + journal};
  const auto and_also = [&](Lines more) {
    more.insert(more.end(), begin.begin(), begin.end());
    return more;
  };
  check(recorded(with({"--minimum-gain=99%", "web"}), folder, journal), journal,
        and_also({"call virDomainBlockCommit"}));
  check(recorded(with({"--force", "web"}), folder, journal), journal,
        and_also({"name disk0.qcow2 "}));
  fs::remove(domain.disk() + ".bak");
  disk.write_some();
  {
    TestDomain::Stopped stopped(domain, {"optimize", "--live", "--force", "web"}, stop_at("swap"));
    stopped.kill();
    domain.kill_qemu();
  }
  check(recorded({"rollback", "--connect", daemon.uri(), domain.disk()}, folder, journal), journal,
        {"call virDomainDefineXML", "remove " + journal});
  CHECK(disk.complaint() == "");
}

TEST_CASE("each step of a run over QMP is flushed before the next one", "[live][qmp]") {
  HandQemu qemu(HandQemu::Style::kDrive);
  const std::string folder = fs::path(qemu.disk()).parent_path();
  const std::string journal = ".disk.qcow2.journal";
  const std::vector<std::string> run{"optimize", "--live", "--qmp", qemu.socket()};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), run.begin(), run.end());
    return more;
  };
  const Lines expected{"name " + journal,        "name disk.qcow2.bak",  "name disk.qcow2 ",
                       "call blockdev-snapshot", "call blockdev-mirror", "call job-complete",
                       "remove " + journal};
  check(recorded(with({"--minimum-gain=99%", qemu.disk()}), folder, journal), journal, expected);
  check(recorded(with({"--force", qemu.disk()}), folder, journal), journal, expected);
  fs::remove(qemu.disk() + ".bak");
  {
    auto stopped = qemu.stopped({"optimize", "--live", "--force", qemu.disk()}, stop_at("mirror"));
    qemu.write_some();
    stopped.kill();
    qemu.kill();
  }
  check(recorded({"rollback", "--qmp", qemu.socket(), qemu.disk()}, folder, journal), journal,
        {"name disk.qcow2 ", "remove " + journal});
  CHECK(qemu.complaint() == "");
}
