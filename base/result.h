// Errors as values.
//
// Every operation that can fail returns a Result<T>.  An Error carries one line for a person, which
// gains context on its way up ("disk.qcow2: L2 table at 0x50000: …"), and an errno for those who
// must answer a protocol.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <tl/expected.hpp>

namespace qcow2 {

class Error {
 public:
  enum class Kind {
    kSystem,       // the operating system or a server said no; errnum() says how
    kCorrupt,      // the bytes of an image contradict the format
    kUnsupported,  // the format allows it, we do not
    kInvalid,      // the caller asked for something that cannot be
    kCancelled,    // somebody asked us to stop
  };

  // "<what>: <text of errnum>".
  static Error system(int errnum, std::string_view what);
  // A system error whose text is there already (a server's, a library's).
  static Error protocol(int errnum, std::string message);
  static Error corrupt(std::string message);
  static Error unsupported(std::string message);
  static Error invalid(std::string message);
  static Error cancelled();

  // Puts "<context>: " in front of the message.
  Error with_context(std::string_view context) &&;

  Kind kind() const noexcept { return kind_; }
  // The errno to answer a protocol with; never 0.
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

// Shorthands for `return fail(Error::corrupt(…))`.
inline Failure fail(Error error) {
  return Failure(std::move(error));
}

// Adds context to the error of a result, if it has one.
template <typename T>
Result<T> with_context(Result<T> result, std::string_view context) {
  if (!result) return fail(std::move(result).error().with_context(context));
  return result;
}

}  // namespace qcow2

#define QCOW2_CONCAT_(a, b) a##b
#define QCOW2_CONCAT(a, b) QCOW2_CONCAT_(a, b)

// RETURN_IF_ERROR (f ()): leaves the function with f's error, if it has one.
#define RETURN_IF_ERROR(expression)                                 \
  do {                                                              \
    auto result_ = (expression);                                    \
    if (!result_) return ::qcow2::fail(std::move(result_).error()); \
  } while (0)

// ASSIGN_OR_RETURN (auto x, f ()): declares (or assigns) x from f's value, or leaves with its
// error.
#define ASSIGN_OR_RETURN(declaration, expression)                             \
  auto QCOW2_CONCAT(result_, __LINE__) = (expression);                        \
  if (!QCOW2_CONCAT(result_, __LINE__))                                       \
    return ::qcow2::fail(std::move(QCOW2_CONCAT(result_, __LINE__)).error()); \
  declaration = std::move(*QCOW2_CONCAT(result_, __LINE__))
