#include "storage/image_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/support/scratch_folder.h"

using namespace vc;

using Catch::Contains;

namespace {

constexpr const char* kAdvice = "let it be";

// A process with its own open file description.
class User {
 public:
  explicit User(const std::string& path) : fd_(::open(path.c_str(), O_RDWR | O_CREAT, 0600)) {
    REQUIRE(fd_ >= 0);
  }
  User(const User&) = delete;
  User& operator=(const User&) = delete;
  ~User() { ::close(fd_); }

  int fd() const { return fd_; }
  Result<void> take(ImageClaim claim) { return lock_.take(fd_, "disk", claim, kAdvice); }

 private:
  int fd_;
  ImageLock lock_;
};

// Returns the bytes of the file that other processes find locked.
std::set<int> locked_bytes(const std::string& path) {
  const User looker(path);
  std::set<int> locked;
  for (int byte = 0; byte < 300; ++byte) {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = byte;
    lock.l_len = 1;
    REQUIRE(::fcntl(looker.fd(), F_OFD_GETLK, &lock) == 0);
    if (lock.l_type == F_UNLCK) continue;
    CHECK(lock.l_type == F_RDLCK);
    locked.insert(byte);
  }
  return locked;
}

std::string myself() {
  return fmt::format("storage-tests (pid {})", getpid());
}

}  // namespace

TEST_CASE("the bytes that QEMU locks are locked", "[image_lock]") {
  const test::ScratchFolder folder;
  User user(folder / "disk");
  REQUIRE(user.take(ImageClaim::reading()));
  CHECK(locked_bytes(folder / "disk") == std::set{100, 201, 203});
  REQUIRE(user.take(ImageClaim::writing()));
  CHECK(locked_bytes(folder / "disk") == std::set{100, 101, 103, 201, 203});
  REQUIRE(user.take(ImageClaim::force_share()));
  CHECK(locked_bytes(folder / "disk") == std::set{100});
  REQUIRE(user.take(ImageClaim::replacing()));
  CHECK(locked_bytes(folder / "disk") == std::set{201, 203});
  REQUIRE(user.take({}));
  CHECK(locked_bytes(folder / "disk").empty());
}

TEST_CASE("readers share an image, and a writer is alone", "[image_lock]") {
  const test::ScratchFolder folder;
  User one(folder / "disk");
  User two(folder / "disk");
  SECTION("two readers") {
    REQUIRE(one.take(ImageClaim::reading()));
    REQUIRE(two.take(ImageClaim::reading()));
    // Neither can become a writer, and both keep their locks.
    for (User* it : {&one, &two}) {
      const auto refused = it->take(ImageClaim::writing());
      REQUIRE_FALSE(refused);
      CHECK(refused.error().errnum() == EBUSY);
      CHECK(refused.error().message() ==
            "disk: is in use by " + myself() + ", which allows no other writer: let it be");
      CHECK(locked_bytes(folder / "disk") == std::set{100, 201, 203});
    }
    REQUIRE(two.take({}));
    CHECK(one.take(ImageClaim::writing()));
  }
  SECTION("a writer, and then others") {
    REQUIRE(one.take(ImageClaim::writing()));
    const std::string complaint =
        "disk: is in use by " + myself() + ", which writes to it: let it be";
    for (const ImageClaim claim :
         {ImageClaim::reading(), ImageClaim::writing(), ImageClaim::replacing()}) {
      const auto refused = two.take(claim);
      REQUIRE_FALSE(refused);
      CHECK(refused.error().message() == complaint);
      CHECK(locked_bytes(folder / "disk") == std::set{100, 101, 103, 201, 203});
    }
    CHECK(two.take(ImageClaim::force_share()));
    // The writer is not affected.
    CHECK(one.take(ImageClaim::writing()));
  }
  SECTION("a file that is replaced") {
    REQUIRE(one.take(ImageClaim::replacing()));
    CHECK(two.take(ImageClaim::reading()));
    CHECK_FALSE(two.take(ImageClaim::writing()));
  }
  SECTION("a single user that forbids reading") {
    REQUIRE(one.take({ImageClaim::kWrite, ImageClaim::kConsistentRead}));
    const auto refused = two.take(ImageClaim::force_share());
    REQUIRE_FALSE(refused);
    CHECK_THAT(refused.error().message(), Contains("which allows no other reader"));
  }
  SECTION("a user that only changes the length") {
    REQUIRE(one.take({ImageClaim::kResize, 0}));
    const auto refused = two.take(ImageClaim::reading());
    REQUIRE_FALSE(refused);
    CHECK_THAT(refused.error().message(), Contains("which may change its length"));
  }
}

TEST_CASE("locks survive a fork while the child lives", "[image_lock]") {
  const test::ScratchFolder folder;
  pid_t child = 0;
  {
    User user(folder / "disk");
    REQUIRE(user.take(ImageClaim::writing()));
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::pause();
      ::_exit(0);
    }
  }
  User other(folder / "disk");
  const auto refused = other.take(ImageClaim::reading());
  CHECK(locked_bytes(folder / "disk") == std::set{100, 101, 103, 201, 203});
  ::kill(child, SIGKILL);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  REQUIRE_FALSE(refused);
  CHECK_THAT(refused.error().message(), Contains(fmt::format("storage-tests (pid {})", child)));
  CHECK(other.take(ImageClaim::reading()));
}

TEST_CASE("a lock of another kind keeps readers out as well", "[image_lock]") {
  const test::ScratchFolder folder;
  const User other(folder / "disk");
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  SECTION("of the open file") {
    REQUIRE(::fcntl(other.fd(), F_OFD_SETLK, &whole) == 0);
  }
  SECTION("of the process") {
    REQUIRE(::fcntl(other.fd(), F_SETLK, &whole) == 0);
  }
  User user(folder / "disk");
  const auto refused = user.take(ImageClaim::reading());
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message() == "disk: is locked by " + myself() + ": let it be");
}

// Returns the result of ImageLock::take in a separate process whose kernel answers `errnum` to lock
// requests, as on filesystems without locks.
std::string take_where_locks_fail(const std::string& path, int errnum) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::vector<sock_filter> filter = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_OFD_SETLK, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(errnum)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT, 0600);
    std::string text = "no filter could be set";
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
        ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0) {
      const auto taken = ImageLock().take(fd, "disk", ImageClaim::reading(), kAdvice);
      text = taken ? "taken" : taken.error().message();
    }
    const ssize_t put = ::write(ends[1], text.data(), text.size());
    ::_exit(put == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  ::close(ends[1]);
  std::string text(1000, 0);
  const ssize_t got = ::read(ends[0], text.data(), text.size());
  ::close(ends[0]);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  REQUIRE(got >= 0);
  text.resize(static_cast<size_t>(got));
  return text;
}

TEST_CASE("files on a filesystem without locks are used without locks", "[image_lock]") {
  const test::ScratchFolder folder;
  for (const int errnum : {EINVAL, ENOLCK, EOPNOTSUPP, ENOSYS})
    CHECK(take_where_locks_fail(folder / "disk", errnum) == "taken");
  CHECK(take_where_locks_fail(folder / "disk", EIO) == "disk: lock: Input/output error");
}
