// A QEMU whose disks are changed while its guest runs, through its monitor.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "qmp/client.h"

namespace vc::qmp {

// A node of QEMU's block layer: an image format, a filter or a file.
struct Node {
  std::string name;
  std::string driver;  // "qcow2", "file"
  std::string file;    // absolute path; as QEMU has it if it is no path
  bool read_only = false;
  bool has_bitmaps = false;
  bool direct = false;    // cache.direct
  bool no_flush = false;  // cache.no-flush
  std::string detect_zeroes = "off";
};

// A disk of the guest.
struct Device {
  std::string name;  // "d0", or the path of the device
  std::string root;  // name of the uppermost node
  // The files from the top down, absolute paths. Filters and formats of the same file count once.
  std::vector<std::string> files;
  bool encrypted = false;
  uint64_t writes = 0;
  uint64_t write_nanoseconds = 0;
  uint64_t flushes = 0;
  uint64_t flush_nanoseconds = 0;

  const std::string& top() const;
};

// How QEMU opens a QCOW2 image for writing, or `read_only`.
struct Opening {
  std::string node;  // the node of the file gets the same name with "-file"
  std::string path;
  std::string backing;     // name of a node; empty: see `no_backing`
  bool no_backing = true;  // do not open the backing file that the image names
  bool read_only = false;
  bool locked = true;  // lock the file against other processes
  bool direct = false;
  bool no_flush = false;
  std::string detect_zeroes = "off";
};

struct Job {
  std::string id;
  std::string type;    // "mirror"
  std::string status;  // "ready", "concluded"
  uint64_t done = 0;   // bytes
  uint64_t total = 0;
  std::string error;
};

class Machine {
 public:
  // Returns nullptr if no QEMU listens at `socket`.
  static Result<std::unique_ptr<Machine>> open(const std::string& socket, Limits limits = {});

  const std::string& name() const { return client_->name(); }

  // Returns an error if this QEMU is too old for the functions below.
  Result<void> check_version();
  enum class Activity { kRuns, kPausedByUser, kPausedOtherwise };
  Result<Activity> activity();
  Result<bool> migrates();
  Result<void> stop();
  Result<void> resume();

  Result<std::vector<Device>> devices();
  Result<std::vector<Node>> nodes();
  Result<std::vector<Job>> jobs();

  Result<void> open_image(const Opening& how);
  // Changes the backing file of an image that open_image() has opened: `how.backing`, or none.
  Result<void> change_backing(const Opening& how);
  Result<void> close(const std::string& node);
  // Lets the guest write to the image `overlay` instead of `node`, which becomes its backing file.
  Result<void> put_on_top(const std::string& node, const std::string& overlay);
  // Copies what `node` has over its backing file to `target`, and what the guest writes meanwhile.
  Result<void> start_mirror(const std::string& job, const std::string& root,
                            const std::string& node, const std::string& target);
  // The guest continues on the target.
  Result<void> complete(const std::string& job);
  Result<void> cancel(const std::string& job);
  Result<void> dismiss(const std::string& job);

 private:
  explicit Machine(std::unique_ptr<Client> client) : client_(std::move(client)) {}
  Result<void> order(const std::string& command, nlohmann::json arguments);
  Result<nlohmann::json> list(const std::string& command, nlohmann::json arguments);
  std::string absolute(const std::string& name) const;
  Device device_of(const nlohmann::json& object) const;

  std::unique_ptr<Client> client_;
};

}  // namespace vc::qmp
