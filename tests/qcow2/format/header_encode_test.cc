#include "qcow2/format/header.h"
#include "tests/catch_text.h"
#include "tests/qcow2/tiny_image.h"

using namespace vc;

using namespace qcow2;

namespace {

Result<Header> encoded_and_read(const Header& header) {
  ASSIGN_OR_RETURN(auto bytes, header.encode());
  return Header::read(MemoryStorage("encoded", std::move(bytes)));
}

Header sample() {
  Header header;
  header.cluster_bits = 16;
  header.size = 5 << 20;
  header.l1_entries = 1;
  header.l1_table = HostOffset(0x30000);
  header.refcount_table = HostOffset(0x10000);
  header.refcount_table_clusters = 1;
  return header;
}

}  // namespace

TEST_CASE("a header is read as it was encoded", "[header]") {
  Header header = sample();
  header.incompatible_features = incompatible::kCompressionType | incompatible::kExtendedL2;
  header.compression_type = CompressionType::kZstd;
  header.compatible_features = compatible::kLazyRefcounts | 1ULL << 50;
  header.autoclear_features = 1ULL << 60;
  header.refcount_order = 3;
  header.backing_file = "base.qcow2";
  header.unknown_fields.assign(16, std::byte{0x5a});
  header.extensions.push_back(feature_name_table());
  header.extensions.push_back({0x12345678, std::vector<std::byte>(13, std::byte{0x77})});
  const auto read = encoded_and_read(header);
  REQUIRE_OK(read);
  CHECK(read->size == header.size);
  CHECK(read->incompatible_features == header.incompatible_features);
  CHECK(read->compatible_features == header.compatible_features);
  CHECK(read->autoclear_features == header.autoclear_features);
  CHECK(read->compression_type == CompressionType::kZstd);
  CHECK(read->refcount_order == 3);
  CHECK(read->backing_file == "base.qcow2");
  CHECK(read->unknown_fields == header.unknown_fields);
  REQUIRE(read->extensions.size() == 2);
  CHECK(read->extensions[0].data == header.extensions[0].data);
  CHECK(read->extensions[1].type == 0x12345678);
  CHECK(read->extensions[1].data == header.extensions[1].data);
}

TEST_CASE("version 2 is encoded without the features of version 3", "[header]") {
  Header header = sample();
  header.version = 2;
  header.backing_file = "b";
  const auto bytes = header.encode();
  REQUIRE_OK(bytes);
  CHECK(bytes->size() == 72 + 8 + 1);
  const auto read = encoded_and_read(header);
  REQUIRE_OK(read);
  CHECK(read->version == 2);
  CHECK(read->backing_file == "b");
}

TEST_CASE("a header that needs more than a cluster is an error", "[header]") {
  Header header = sample();
  header.cluster_bits = 9;
  header.backing_file.assign(400, 'x');
  REQUIRE_FAILS_WITH(header.encode(), "more than a cluster");
}
