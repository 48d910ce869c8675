#include "pool.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <system_error>

namespace dle {
namespace {

// The stages of one image follow each other faster than the system wakes a thread.
constexpr std::chrono::microseconds kPatience(100);
constexpr int kLooksPerYield = 64;

inline void Relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int32_t num_threads) : process_(getpid()) {
  threads_.reserve(static_cast<size_t>(std::max(num_threads, 1) - 1));
  for (int32_t worker = 1; worker < num_threads; ++worker) {
    try {
      threads_.emplace_back(&Pool::Serve, this, worker);
    } catch (const std::system_error&) {
      break;
    }
  }
}

Pool::~Pool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_over_ = true;
    ++job_;
  }
  has_job_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool Pool::IsForked() const { return getpid() != process_; }

void Pool::Run(int32_t count, const void* body, Call call) {
  if (threads_.empty() || count < 2 || IsForked()) {
    for (int32_t block = 0; block < count; ++block) call(body, block, 0);
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    body_ = body;
    call_ = call;
    count_ = count;
    next_block_ = 0;
    has_failed_ = false;
    is_open_ = true;
    ++job_;
  }
  has_job_.notify_all();
  Work(0);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_open_ = false;
  }
  for (int look = 1; num_busy_.load(std::memory_order_acquire) > 0; ++look) {
    if (look % kLooksPerYield) {
      Relax();
    } else {
      std::this_thread::yield();
    }
  }
  if (has_failed_) throw std::bad_alloc();
}

void Pool::Work(int32_t worker) {
  try {
    for (int32_t block = next_block_++; block < count_; block = next_block_++) {
      call_(body_, block, worker);
    }
  } catch (...) {
    has_failed_ = true;
  }
}

void Pool::Serve(int32_t worker) {
  uint64_t done = 0;
  while (true) {
    const auto start = std::chrono::steady_clock::now();
    while (job_.load(std::memory_order_acquire) == done) {
      for (int look = 0; look < kLooksPerYield; ++look) Relax();
      if (std::chrono::steady_clock::now() - start > kPatience) break;
      std::this_thread::yield();
    }
    {
      std::unique_lock<std::mutex> lock(mutex_);
      has_job_.wait(lock, [&] { return job_ != done; });
      if (is_over_) return;
      done = job_;
      if (!is_open_) continue;
      ++num_busy_;
    }
    Work(worker);
    num_busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace dle
