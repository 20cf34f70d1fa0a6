// Locks that Clang checks at compile time: -Wthread-safety, scripts/lint --thread-safety.
//
//     class Total {
//      public:
//       void add(uint64_t bytes) {
//         const MutexLock lock(mutex_);
//         bytes_ += bytes;                       // an error without the lock
//       }
//      private:
//       void reset() REQUIRES(mutex_);           // a call without the lock is an error
//       Mutex mutex_;
//       uint64_t bytes_ GUARDED_BY(mutex_) = 0;
//     };
//
// The attributes are those of "Thread Safety Analysis" in Clang's manual. The analysis looks at one
// function at a time, and does not look at constructors and destructors. Inside of a lambda it
// knows no lock of the function around it: wait for a condition in a loop, not with a predicate.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <shared_mutex>

#ifdef __clang__
#define VC_THREAD_SAFETY(attribute) __attribute__((attribute))
#else
#define VC_THREAD_SAFETY(attribute)
#endif

// A class whose objects can be held, and a class that holds one as long as it lives.
#define CAPABILITY(kind) VC_THREAD_SAFETY(capability(kind))
#define SCOPED_CAPABILITY VC_THREAD_SAFETY(scoped_lockable)

// Data that is read with the lock held shared or exclusively, and written with the lock held
// exclusively. PT_: what the pointer points to.
#define GUARDED_BY(lock) VC_THREAD_SAFETY(guarded_by(lock))
#define PT_GUARDED_BY(lock) VC_THREAD_SAFETY(pt_guarded_by(lock))

// Functions: the caller must hold the locks, or must not hold them.
#define REQUIRES(...) VC_THREAD_SAFETY(requires_capability(__VA_ARGS__))
#define REQUIRES_SHARED(...) VC_THREAD_SAFETY(requires_shared_capability(__VA_ARGS__))
#define EXCLUDES(...) VC_THREAD_SAFETY(locks_excluded(__VA_ARGS__))

// Functions that take or release a lock: those named, or without a name, the object itself.
#define ACQUIRE(...) VC_THREAD_SAFETY(acquire_capability(__VA_ARGS__))
#define ACQUIRE_SHARED(...) VC_THREAD_SAFETY(acquire_shared_capability(__VA_ARGS__))
#define RELEASE(...) VC_THREAD_SAFETY(release_capability(__VA_ARGS__))

// The function tells the analysis that the lock is held.
#define ASSERT_CAPABILITY(lock) VC_THREAD_SAFETY(assert_capability(lock))

// The function returns a reference to this lock.
#define RETURN_CAPABILITY(lock) VC_THREAD_SAFETY(lock_returned(lock))

// A lock that is always taken before the named ones.
#define ACQUIRED_BEFORE(...) VC_THREAD_SAFETY(acquired_before(__VA_ARGS__))

// A function that the analysis cannot follow. A comment there says what holds instead.
#define NO_THREAD_SAFETY_ANALYSIS VC_THREAD_SAFETY(no_thread_safety_analysis)

namespace vc {

// Held by one thread at a time.
class CAPABILITY("mutex") Mutex {
 public:
  // Tells the analysis that this thread holds the mutex, where it cannot see that. Does nothing.
  void assert_held() const ASSERT_CAPABILITY(this) {}

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

// Holds a mutex from construction to destruction, except between unlock() and lock().
class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : lock_(mutex.mutex_) {}
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  ~MutexLock() RELEASE() = default;

  void unlock() RELEASE() { lock_.unlock(); }
  void lock() ACQUIRE() { lock_.lock(); }

 private:
  friend class ConditionVariable;
  std::unique_lock<std::mutex> lock_;
};

// Wakes threads that wait for a change of what a Mutex guards. Waits may end without a reason:
// callers check the condition in a loop. During a wait, the lock is released; afterwards it is held
// again.
class ConditionVariable {
 public:
  void notify_one() noexcept { variable_.notify_one(); }
  void notify_all() noexcept { variable_.notify_all(); }

  void wait(MutexLock& lock) { variable_.wait(lock.lock_); }
  // These two return false if the time is over.
  bool wait_for(MutexLock& lock, std::chrono::steady_clock::duration time) {
    return wait_until(lock, std::chrono::steady_clock::now() + time);
  }
  bool wait_until(MutexLock& lock, std::chrono::steady_clock::time_point time) {
    return variable_.wait_until(lock.lock_, time) == std::cv_status::no_timeout;
  }

 private:
  std::condition_variable variable_;
};

// Held by one thread that writes, or by any number of threads that read.
class CAPABILITY("shared mutex") SharedMutex {
 private:
  friend class ExclusiveLock;
  friend class SharedLock;
  std::shared_mutex mutex_;
};

class SCOPED_CAPABILITY ExclusiveLock {
 public:
  explicit ExclusiveLock(SharedMutex& mutex) ACQUIRE(mutex) : lock_(mutex.mutex_) {}
  ExclusiveLock(const ExclusiveLock&) = delete;
  ExclusiveLock& operator=(const ExclusiveLock&) = delete;
  ~ExclusiveLock() RELEASE() = default;

 private:
  std::unique_lock<std::shared_mutex> lock_;
};

class SCOPED_CAPABILITY SharedLock {
 public:
  explicit SharedLock(SharedMutex& mutex) ACQUIRE_SHARED(mutex) : lock_(mutex.mutex_) {}
  SharedLock(const SharedLock&) = delete;
  SharedLock& operator=(const SharedLock&) = delete;
  ~SharedLock() RELEASE() = default;

 private:
  std::shared_lock<std::shared_mutex> lock_;
};

}  // namespace vc
