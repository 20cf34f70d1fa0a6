// Errors as values.
//
// Every operation that can fail returns a Result<T>. An Error has a one-line message for the user
// and an errno for protocol replies.  Callers add context to the message ("disk.qcow2: L2 table at
// 0x50000: …").
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <tl/expected.hpp>

namespace vc {

class Error {
 public:
  enum class Kind {
    kSystem,       // the operating system or a server returned an error; see errnum()
    kCorrupt,      // the bytes of an image violate the format
    kUnsupported,  // the format allows it, this program does not support it
    kInvalid,      // the caller's request is not valid
    kCancelled,    // the user or another thread cancelled the operation
  };

  // Returns an error with the message "<what>: <text of errnum>".
  static Error system(int errnum, std::string_view what);
  // Returns a system error with an existing message (from a server or a library).
  static Error protocol(int errnum, std::string message);
  static Error corrupt(std::string message);
  static Error unsupported(std::string message);
  static Error invalid(std::string message);
  static Error cancelled();

  // Prepends "<context>: " to the message.
  Error with_context(std::string_view context) &&;

  Kind kind() const noexcept { return kind_; }
  // Returns the errno for a protocol reply; never 0.
  int errnum() const noexcept { return errnum_; }
  const std::string& message() const noexcept { return message_; }

 private:
  Error(Kind kind, int errnum, std::string message)
      : kind_(kind), errnum_(errnum), message_(std::move(message)) {}

  Kind kind_;
  int errnum_;
  std::string message_;
};

template <typename T>
using Result = tl::expected<T, Error>;

using Failure = tl::unexpected<Error>;

// A shorthand: `return fail(Error::corrupt(…))`.
inline Failure fail(Error error) {
  return Failure(std::move(error));
}

// Adds context to the error of `result`, if it has one.
template <typename T>
Result<T> with_context(Result<T> result, std::string_view context) {
  if (!result) return fail(std::move(result).error().with_context(context));
  return result;
}

}  // namespace vc

#define QCOW2_CONCAT_(a, b) a##b
#define QCOW2_CONCAT(a, b) QCOW2_CONCAT_(a, b)

// RETURN_IF_ERROR (f ()): returns the error of f from the enclosing function, if it has one.
#define RETURN_IF_ERROR(expression)                              \
  do {                                                           \
    auto result_ = (expression);                                 \
    if (!result_) return ::vc::fail(std::move(result_).error()); \
  } while (0)

// ASSIGN_OR_RETURN (auto x, f ()): declares or assigns x from the value of f, or returns the error
// of f from the enclosing function.
#define ASSIGN_OR_RETURN(declaration, expression)                          \
  auto QCOW2_CONCAT(result_, __LINE__) = (expression);                     \
  if (!QCOW2_CONCAT(result_, __LINE__))                                    \
    return ::vc::fail(std::move(QCOW2_CONCAT(result_, __LINE__)).error()); \
  declaration = std::move(*QCOW2_CONCAT(result_, __LINE__))
