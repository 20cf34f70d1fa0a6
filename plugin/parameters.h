// The parameters of the command line.
#pragma once

#include <string>

#include "plugin/served_image.h"
#include "qcow2/build/builder.h"

namespace vc::plugin {

class Parameters {
 public:
  // The text for --help.
  static const char* const kHelp;

  // Sets one key=value. Returns 0, or -1 after nbdkit_error().
  int set(const char* key, const char* value);
  // Checks the parameters after all were set. Returns 0, or -1 after nbdkit_error().
  int complete();

  const Config& config() const { return config_; }
  // Whether to create the image first, and its options.
  bool create() const { return create_; }
  const qcow2::BuildOptions& image() const { return image_; }

 private:
  int set_salvage(const char* value);
  int set_file(const char* value);
  int set_backing(const char* value);
  int set_data_file(const char* value);
  int resolve_trust();
  int set_discard(const char* value);
  int set_detect_zeroes(const char* value);
  int set_cache_size(const char* value);
  int set_snapshot(const char* value);
  int set_passphrase(const char* value);
  int set_size(const char* value);
  int set_cluster_size(const char* value);

  Config config_;
  std::shared_ptr<crypto::KeyRing> keys_ = std::make_shared<crypto::KeyRing>();
  bool backing_given_ = false;
  bool untrusted_ = false;
  bool create_ = false;
  bool has_size_ = false;
  bool has_cluster_size_ = false;
  qcow2::BuildOptions image_;
};

}  // namespace vc::plugin
