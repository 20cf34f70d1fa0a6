// Shows a raw file as a guest's disk.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "guest/inspection.h"
#include "qcow2/read/chain.h"

namespace vc::guest_test {

class ImageFile {
 public:
  // Throws std::runtime_error if the file cannot be opened.
  ImageFile(const std::string& path, size_t number)
      : disk_(open(path).disk()), view_(std::make_shared<guest::ImageView>(disk_, number)) {}
  ImageFile(const ImageFile&) = delete;
  ImageFile& operator=(const ImageFile&) = delete;

  const std::shared_ptr<guest::ImageView>& view() const { return view_; }

 private:
  static qcow2::Chain open(const std::string& path) {
    qcow2::OpenOptions options;
    options.format = qcow2::Format::kRaw;
    auto chain = qcow2::Chain::open(path, options);
    if (!chain) throw std::runtime_error(chain.error().message());
    return std::move(*chain);
  }

  const qcow2::Disk disk_;
  const std::shared_ptr<guest::ImageView> view_;
};

inline guest::Inspection inspect_files(const std::vector<std::string>& paths) {
  std::vector<std::unique_ptr<ImageFile>> files;
  std::vector<std::shared_ptr<const guest::ByteView>> views;
  for (const std::string& path : paths) {
    files.push_back(std::make_unique<ImageFile>(path, files.size()));
    views.push_back(files.back()->view());
  }
  return guest::inspect(views);
}

}  // namespace vc::guest_test
