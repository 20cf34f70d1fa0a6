#include "tests/faults/scenarios.h"

#include <array>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "tests/support/command_line.h"
#include "tests/support/nbd_server.h"
#include "tests/support/raw_file.h"

namespace vc::faults {

using support::run;
using support::run_ok;

namespace fs = std::filesystem;

namespace {

using Words = std::vector<std::string>;

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  if (!value) throw std::runtime_error(std::string(name) + " is not set");
  return value;
}

Words tool(Words arguments) {
  arguments.insert(arguments.begin(), tool_test::virt_compact());
  return arguments;
}

// Writes to the disk of an image with commands of qemu-io.
void write(const std::string& path, const Words& writes, const std::string& format = "qcow2") {
  Words command{"qemu-io", "-t", "unsafe", "-f", format};
  for (const std::string& it : writes) {
    command.emplace_back("-c");
    command.push_back("write -q " + it);
  }
  command.push_back(path);
  run_ok(command);
}

void create(const std::string& path, const Words& options = {}) {
  Words command{"qemu-img", "create", "-q", "-f", "qcow2"};
  command.insert(command.end(), options.begin(), options.end());
  command.push_back(path);
  command.emplace_back("1M");
  run_ok(command);
}

const Words kOldWrites{"-P 1 0 64k", "-P 2 384k 64k", "-P 0 512k 64k"};
const Words kNewWrites{"-P 3 64k 128k", "-P 4 400k 20k"};

// Makes a disk in FOLDER/NAME.qcow2.
void make_disk(const std::string& folder, const std::string& name, bool changed = false) {
  const std::string path = folder + "/" + name + ".qcow2";
  create(path);
  write(path, kOldWrites);
  if (changed) write(path, kNewWrites);
}

// Makes raw files with the same content, for comparison.
void make_references(const std::string& folder) {
  const std::string old = folder + "/old.raw";
  run_ok({"truncate", "-s", "1M", old});
  write(old, kOldWrites, "raw");
  fs::copy_file(old, folder + "/new.raw");
  write(folder + "/new.raw", kNewWrites, "raw");
}

// Runs a command in `folder`, since QEMU resolves a data file relative to its working directory.
support::Outcome run_in(const std::string& folder, const Words& command) {
  support::RunOptions how;
  how.directory = folder;
  return run(command, how);
}

bool holds(const std::string& folder, const std::string& image, const std::string& reference) {
  return run_in(folder, {"qemu-img", "compare", "-q", "-F", "raw", image, reference}).ok();
}

// Returns qemu-img's complaint about an image, except about leaked clusters. A dirty image is
// allowed, since every program repairs it when opening it.
std::string complaint_of(const std::string& folder, const std::string& image) {
  const auto check = run_in(folder, {"qemu-img", "check", "-q", image});
  if (check.ok() || check.exit_code == 3) return "";
  const auto info = run_in(folder, {"qemu-img", "info", "--output=json", image});
  if (info.out.find("\"dirty-flag\": true") == std::string::npos) return check.describe();
  const std::string copy = "../repaired";
  fs::copy_file(folder + "/" + image, folder + "/" + copy, fs::copy_options::overwrite_existing);
  const auto repaired = run_in(folder, {"qemu-img", "check", "-q", "-r", "all", copy});
  return repaired.ok() ? "" : repaired.describe();
}

// Returns a check that the image holds the old disk or the new one.
std::function<std::string(const std::string&)> old_or_new(const std::string& image) {
  return [image](const std::string& folder) -> std::string {
    if (!holds(folder, image, "old.raw") && !holds(folder, image, "new.raw"))
      return image + " is neither the old disk nor the new one";
    return complaint_of(folder, image);
  };
}

std::function<bool(const std::string&)> is_new(const std::string& image) {
  return [image](const std::string& folder) { return holds(folder, image, "new.raw"); };
}

std::function<bool(const std::string&)> is_there(const std::string& image) {
  return [image](const std::string& folder) { return fs::exists(folder + "/" + image); };
}

// Returns a check that the image does not exist, or holds the new disk.
std::function<std::string(const std::string&)> nothing_or_new(const std::string& image) {
  return [image](const std::string& folder) -> std::string {
    if (!fs::exists(folder + "/" + image)) return "";
    if (!holds(folder, image, "new.raw")) return image + " is there, and is not the disk";
    return image.ends_with(".raw") ? "" : complaint_of(folder, image);
  };
}

bool has_snapshot(const std::string& folder, const std::string& name) {
  const auto list = run_ok({"qemu-img", "snapshot", "-U", "-l", folder + "/disk.qcow2"});
  return list.out.find(" " + name + " ") != std::string::npos;
}

// Makes disk.qcow2 with the old disk, and with the new disk as snapshot "kept".
void make_snapshots(const std::string& folder) {
  make_references(folder);
  const std::string disk = folder + "/disk.qcow2";
  make_disk(folder, "disk", true);
  run_ok({"qemu-img", "snapshot", "-c", "kept", disk});
  write(disk, {"-z 64k 128k", "-P 2 400k 20k"});
}

void make_overlay(const std::string& folder) {
  make_references(folder);
  make_disk(folder, "base");
  create(folder + "/disk.qcow2", {"-b", "base.qcow2", "-F", "qcow2"});
  write(folder + "/disk.qcow2", kNewWrites);
}

Scenario copying(const std::string& name, Words options, const std::string& result) {
  options.insert(options.begin(), "copy");
  options.insert(options.end(), {"-q", "disk.qcow2", result});
  return {name,
          tool(options),
          result,
          [](const std::string& folder) {
            make_references(folder);
            make_disk(folder, "disk", true);
          },
          is_there(result),
          nothing_or_new(result),
          {"disk.qcow2"},
          {result}};
}

Scenario snapshot(const std::string& name, const Words& options,
                  std::function<bool(const std::string&)> has_taken_effect) {
  Words words{"snapshot", "-q"};
  words.insert(words.end(), options.begin(), options.end());
  words.emplace_back("disk.qcow2");
  return {name,
          tool(words),
          "disk.qcow2",
          make_snapshots,
          std::move(has_taken_effect),
          old_or_new("disk.qcow2")};
}

Scenario optimizing() {
  return {"optimize",
          tool({"optimize", "--no-trim", "--force", "-q", "disk.qcow2"}),
          "disk.qcow2",
          [](const std::string& folder) {
            make_references(folder);
            make_disk(folder, "disk", true);
          },
          [](const std::string& folder) {
            const std::string disk = folder + "/disk.qcow2";
            return fs::exists(disk + ".bak") && !fs::equivalent(disk, disk + ".bak");
          },
          [](const std::string& folder) -> std::string {
            if (!holds(folder, "disk.qcow2", "new.raw")) return "the disk has changed";
            return complaint_of(folder, "disk.qcow2");
          },
          {},
          {"disk.qcow2.bak"}};
}

Scenario rolling_back() {
  return {"rollback",
          tool({"rollback", "-q", "disk.qcow2"}),
          "disk.qcow2",
          [](const std::string& folder) {
            make_references(folder);
            make_disk(folder, "disk");
            make_disk(folder, "disk.qcow2", true);
            fs::rename(folder + "/disk.qcow2.qcow2", folder + "/disk.qcow2.bak");
          },
          is_new("disk.qcow2"),
          [](const std::string& folder) -> std::string {
            const bool forth = holds(folder, "disk.qcow2", "old.raw");
            if (!holds(folder, "disk.qcow2", forth ? "old.raw" : "new.raw") ||
                !holds(folder, "disk.qcow2.bak", forth ? "new.raw" : "old.raw"))
              return "the two disks are not there any more";
            return "";
          }};
}

Scenario checking() {
  return {"check -r all",
          tool({"check", "-q", "-r", "all", "disk.qcow2"}),
          "disk.qcow2",
          [](const std::string& folder) {
            make_references(folder);
            make_disk(folder, "disk", true);
            // Patches the refcount of the first data cluster. The refcount block is the third
            // cluster.
            support::patch_file(folder + "/disk.qcow2", 0x20000 + 2 * 5,
                                std::array<std::byte, 2>{});
          },
          [](const std::string& folder) {
            return run({"qemu-img", "check", "-q", folder + "/disk.qcow2"}).ok();
          },
          [](const std::string& folder) -> std::string {
            return holds(folder, "disk.qcow2", "new.raw") ? "" : "the disk reads otherwise";
          },
          {},
          {"disk.qcow2.undo", "second.undo"},
          // The repair can be undone or continued.
          {"partly repaired", "could not be checked completely"},
          tool({"check", "-q", "-r", "all", "--undo", "second.undo", "disk.qcow2"})};
}

Scenario tuning() {
  return {"tune --apply",
          tool({"tune", "-q", "--apply", "vm.xml"}),
          "vm.xml",
          [](const std::string& folder) {
            support::write_file(folder + "/vm.xml",
                                std::string("<domain type='kvm'>\n  <name>vm</name>\n  <devices>\n"
                                            "    <disk type='file' device='disk'>\n"
                                            "      <driver name='qemu' type='qcow2'/>\n"
                                            "      <source file='/nowhere/vm.qcow2'/>\n"
                                            "      <target dev='sda' bus='sata'/>\n"
                                            "    </disk>\n  </devices>\n</domain>\n"));
          },
          [](const std::string& folder) {
            const auto bytes = support::read_file(folder + "/vm.xml");
            const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
            return text.find("discard='unmap'") != std::string::npos &&
                   text.ends_with("</domain>\n");
          },
          [](const std::string& folder) -> std::string {
            const auto bytes = support::read_file(folder + "/vm.xml");
            const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
            return text.ends_with("</domain>\n") ? "" : "it is cut off";
          }};
}

// Fills holes in the file of the disk.
Scenario compacting(const Words& levels) {
  Words words{"compact", "-q", "disk.qcow2"};
  words.insert(words.end(), levels.begin(), levels.end());
  std::string name = "compact";
  for (const std::string& it : levels) name += " " + it;
  return {name,
          tool(words),
          "disk.qcow2",
          [](const std::string& folder) {
            make_references(folder);
            make_disk(folder, "disk", true);
            write(folder + "/disk.qcow2", {"-P 9 700k 200k"});
            run_ok({"qemu-img", "snapshot", "-c", "kept", folder + "/disk.qcow2"});
            write(folder + "/disk.qcow2", {"-z -u 700k 200k", "-P 3 64k 128k"});
            run_ok({"qemu-img", "snapshot", "-d", "kept", folder + "/disk.qcow2"});
          },
          [](const std::string& folder) { return fs::file_size(folder + "/disk.qcow2") < 1000000; },
          [](const std::string& folder) -> std::string {
            if (!holds(folder, "disk.qcow2", "new.raw")) return "the disk reads otherwise";
            return complaint_of(folder, "disk.qcow2");
          },
          {},
          {},
          {"incomplete, but its content is unchanged"}};
}

Scenario flattening_in_place() {
  return {"flatten --in-place",
          tool({"flatten", "-q", "--in-place", "disk.qcow2"}),
          "disk.qcow2",
          make_overlay,
          [](const std::string& folder) {
            return run_ok({"qemu-img", "info", "-U", folder + "/disk.qcow2"})
                       .out.find("backing file:") == std::string::npos;
          },
          [](const std::string& folder) -> std::string {
            if (!holds(folder, "disk.qcow2", "new.raw")) return "the disk reads otherwise";
            return complaint_of(folder, "disk.qcow2");
          },
          {"base.qcow2"}};
}

Scenario flattening() {
  Scenario it = copying("flatten", {}, "flat.qcow2");
  it.command = tool({"flatten", "-q", "disk.qcow2", "flat.qcow2"});
  it.prepare = make_overlay;
  it.untouched.emplace_back("base.qcow2");
  return it;
}

// An image and its data file are useless without each other.
Scenario copying_to_data_file() {
  Scenario it = copying("copy -o data_file", {"-o", "data_file=data.raw"}, "result.qcow2");
  it.may_appear.emplace_back("data.raw");
  it.complaint = [](const std::string& folder) -> std::string {
    if (fs::exists(folder + "/data.raw") != fs::exists(folder + "/result.qcow2"))
      return "one of two files is there";
    return nothing_or_new("result.qcow2")(folder);
  };
  return it;
}

Scenario replacing() {
  return {"copy --force",
          tool({"copy", "-q", "--force", "disk.qcow2", "result.qcow2"}),
          "result.qcow2",
          [](const std::string& folder) {
            make_references(folder);
            make_disk(folder, "disk", true);
            make_disk(folder, "result");
          },
          is_new("result.qcow2"),
          old_or_new("result.qcow2"),
          {"disk.qcow2"}};
}

// A client that writes, trims and zeroes, and then flushes.
Scenario serving(const std::string& name, const std::string& flag, const std::string& last) {
  std::string client = "qemu-io -f raw -t none";
  for (const std::string& it : kNewWrites)
    client += " -c 'write -q " + flag + " " + it + "' -c 'discard -q 512k 64k'";
  client += " -c '" + last + "' \"$uri\"";
  return {
      name,
      {"nbdkit", "-U", "-", variable("VIRT_COMPACT_PLUGIN"), "file=disk.qcow2", "--run", client},
      "disk.qcow2",
      [](const std::string& folder) {
        make_references(folder);
        make_disk(folder, "disk");
      },
      is_new("disk.qcow2"),
      // After an error, a part of the client's writes may be in the image.
      [](const std::string& folder) { return complaint_of(folder, "disk.qcow2"); }};
}

// The written data is arbitrary: only the state of the image counts.
Scenario benching() {
  return {"bench -w",
          tool({"bench", "-q", "-w", "--yes", "-c", "20", "-d", "1", "disk.qcow2"}),
          "disk.qcow2",
          [](const std::string& folder) { make_disk(folder, "disk"); },
          [](const std::string&) { return true; },
          [](const std::string& folder) { return complaint_of(folder, "disk.qcow2"); },
          {},
          {},
          {"error"}};
}

// The disk's content never changes.
Scenario punching() {
  return {
      "punch",
      tool({"punch", "-q", "[", "nbdkit", variable("VIRT_COMPACT_PLUGIN"), "file=disk.qcow2", "]"}),
      "disk.qcow2",
      [](const std::string& folder) {
        make_references(folder);
        make_disk(folder, "disk", true);
      },
      is_new("disk.qcow2"),
      old_or_new("disk.qcow2"),
      {},
      {},
      {"error"}};
}

// Makes a filesystem with files, some of which were deleted.
void make_guest(const std::string& folder) {
  const std::string raw = folder + "/old.raw";
  support::write_file(raw, std::string(2 << 20, 'x'));
  fs::create_directory(folder + "/files");
  support::write_file(folder + "/files/kept", std::string(300 << 10, 'k'));
  run_ok({"mke2fs", "-q", "-F", "-t", "ext2", "-E", "nodiscard", "-d", folder + "/files", raw});
  fs::remove_all(folder + "/files");
  run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-S", "0", "-o", "cluster_size=4k",
          raw, folder + "/disk.qcow2"});
}

Scenario trimming() {
  return {"trim --metadata",
          tool({"trim", "--metadata", "-q", "disk.qcow2"}),
          "disk.qcow2",
          make_guest,
          // Clusters may be leaked, and the file may be longer than necessary.
          [](const std::string& folder) {
            return run_in(folder, tool({"trim", "--metadata", "--dry-run", "--json", "disk.qcow2"}))
                       .out.find("\"freed\": 0,") != std::string::npos;
          },
          [](const std::string& folder) -> std::string {
            const std::string now = folder + "/../now.raw";
            run_ok({"qemu-img", "convert", "-O", "raw", folder + "/disk.qcow2", now});
            const auto check = run({"e2fsck", "-f", "-n", now});
            if (!check.ok()) return check.describe();
            if (run_ok({"debugfs", "-R", "cat /kept", now}).out != std::string(300 << 10, 'k'))
              return "the guest's file has changed";
            return complaint_of(folder, "disk.qcow2");
          },
          {},
          {},
          {"the guest's files are unchanged"}};
}

}  // namespace

std::vector<Scenario> scenarios() {
  std::vector<Scenario> all{
      copying("copy", {}, "result.qcow2"),
      copying("copy -c", {"-c"}, "result.qcow2"),
      copying("copy -O raw", {"-O", "raw"}, "result.raw"),
      copying_to_data_file(),
      replacing(),
      optimizing(),
      rolling_back(),
      snapshot("snapshot -c", {"-c", "fresh"},
               [](const std::string& folder) { return has_snapshot(folder, "fresh"); }),
      snapshot("snapshot -d", {"-d", "kept"},
               [](const std::string& folder) { return !has_snapshot(folder, "kept"); }),
      snapshot("snapshot -a", {"-a", "kept"}, is_new("disk.qcow2")),
      flattening(),
      compacting({}),
      compacting({"--zeros"}),
      compacting({"--defragment", "-c"}),
      flattening_in_place(),
      checking(),
      trimming(),
      tuning(),
      benching(),
  };
  // A sanitizer's library must be loaded before all others.
  if (support::nbdkit_command().size() > 1) return all;
  all.push_back(serving("plugin, flush", "", "flush"));
  all.push_back(serving("plugin, FUA", "-f", "read -q 0 512"));
  all.push_back(punching());
  return all;
}

}  // namespace vc::faults
