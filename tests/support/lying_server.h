// An NBD server that disconnects, stops answering, or sends wrong answers on request.
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
  // Lies during the handshake.
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
  // Lies at every command.
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
  // Lies at reads.
  kLeaveInPayload,
  kSilentInPayload,
  kSimpleReply,  // although structured replies were negotiated
  kEmptyReply,   // a success without data
  kFirstHalf,
  kLastHalf,
  kOverlapping,  // the first half twice, with the requested length
  kTooLong,      // a byte more than requested
  kBefore,       // begins a byte too early
  kWraps,        // a hole at the end of 64 bits, around zero
  kEveryOtherByte,
  kZeroLength,  // a hole of no bytes, and nothing else
  kDataThenError,
  // Lies at block status.
  kStatusEmpty,
  kStatusZeroLength,
  kStatusTooMany,
  kStatusTooLong,
  kStatusOtherContext,
  kStatusTwice,
  kStatusThenError,
  kStatusOddLength,
  kStatusForRead,  // at reads
  // At trims.
  kSilentAtTrim,
};

// All values except kNone.
std::vector<Lie> all_lies();
const char* to_string(Lie lie);
// Returns true if a client that needs the data must fail.
bool spoils_reads(Lie lie);

// Listens on a Unix socket in a temporary folder. Each connection has a thread.
class LyingServer {
 public:
  struct Options {
    Lie lie = Lie::kNone;
    // Number of commands of this kind, over all connections, that get a right answer first.
    unsigned honest = 0;
    // Number of wrong answers. Later answers are right.
    unsigned most_lies = UINT_MAX;
    bool multi_conn = true;
    bool structured = true;  // needed for wrong chunks
  };

  LyingServer(const Options& options, std::vector<std::byte> disk);
  LyingServer(const LyingServer&) = delete;
  LyingServer& operator=(const LyingServer&) = delete;
  ~LyingServer();

  std::string uri() const;
  // Returns the content of the disk.
  std::vector<std::byte> disk() const;
  // Returns the number of commands with a wrong answer, or that would have had one without
  // `most_lies`.
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
