// An NBD server that leaves, falls silent, or lies, where it is told to.
#pragma once

#include <atomic>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/temp_directory.h"

namespace vc::support {

enum class Lie {
  kNone,
  // Before there is a connection.
  kLeaveAtOnce,
  kSilentAtOnce,
  kGarbageGreeting,
  kLeaveInOptions,
  kSilentInOptions,
  kWrongOptionMagic,
  kEndlessOptions,
  kLeaveAtGo,
  kSilentAtGo,
  kSizeTooLarge,     // 2^63 bytes
  kMinimumTooLarge,  // blocks of 3000 bytes
  kMaximumTooSmall,  // requests of 16 bytes
  // At every command.
  kLeaveAtCommand,
  kSilentAtCommand,
  kLeaveInHeader,
  kSilentInHeader,
  kTrickle,  // a byte each 20 ms
  kWrongCookie,
  kWrongMagic,
  kUnknownChunk,
  kErrorChunk,
  kErrorOfHugeLength,
  kHugeLength,  // a chunk of 4 GiB
  kEndlessChunks,
  // At reads.
  kLeaveInPayload,
  kSilentInPayload,
  kSimpleReply,  // although chunks were agreed on
  kEmptyReply,   // a success without data
  kFirstHalf,
  kLastHalf,
  kOverlapping,  // the first half twice, and as long as what was asked for
  kTooLong,      // a byte more than was asked for
  kBefore,       // begins a byte too early
  kWraps,        // a hole at the end of 64 bits, around zero
  kEveryOtherByte,
  kZeroLength,  // a hole of no bytes, and nothing else
  kDataThenError,
  // At block status.
  kStatusEmpty,
  kStatusZeroLength,
  kStatusTooMany,
  kStatusTooLong,
  kStatusOtherContext,
  kStatusTwice,
  kStatusThenError,
  kStatusOddLength,
  kStatusForRead,  // at reads
};

// All of them but kNone.
std::vector<Lie> all_lies();
const char* to_string(Lie lie);

// Listens on a Unix socket in a folder of its own; each connection has a thread.
class LyingServer {
 public:
  struct Options {
    Lie lie = Lie::kNone;
    // So many commands that the lie is about are answered well first, over all connections.
    unsigned honest = 0;
    // After so many lies it is honest again.
    unsigned most_lies = UINT_MAX;
    bool multi_conn = true;
    bool structured = true;  // lies about chunks want it
  };

  LyingServer(const Options& options, std::vector<std::byte> disk);
  LyingServer(const LyingServer&) = delete;
  LyingServer& operator=(const LyingServer&) = delete;
  ~LyingServer();

  std::string uri() const;
  // What is on the disk now.
  std::vector<std::byte> disk() const;
  // Commands that were answered with the lie, or would have been but for `most_lies`.
  unsigned lies() const { return lies_; }

 private:
  class Client;
  void accept_all();

  const Options options_;
  mutable std::mutex mutex_;
  std::vector<std::byte> disk_;       // guarded by mutex_
  std::vector<int> sockets_;          // guarded by mutex_
  std::vector<std::thread> clients_;  // of the accepting thread
  std::atomic<unsigned> commands_{0};
  std::atomic<unsigned> lies_{0};
  std::atomic<bool> stop_{false};
  TempDirectory folder_;
  int listening_ = -1;
  std::thread acceptor_;
};

}  // namespace vc::support
