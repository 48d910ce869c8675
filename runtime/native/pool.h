// Threads that wait for work.

#ifndef DEEPLAB2_EDGE_POOL_H_
#define DEEPLAB2_EDGE_POOL_H_

#include <stdint.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace dle {

// The caller's thread works too, and never waits for one that has not begun: on a busy
// machine it does all. In a forked child it is alone.
class Pool {
 public:
  explicit Pool(int32_t num_threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Numbers of workers are below this.
  int32_t num_workers() const { return static_cast<int32_t>(threads_.size()) + 1; }

  // Calls body(block, worker) for blocks 0 to count - 1, in any order, by any worker.
  // Throws std::bad_alloc if a body throws.
  template <typename Body>
  void ForEach(int32_t count, const Body& body) {
    Run(count, &body, [](const void* data, int32_t block, int32_t worker) {
      (*static_cast<const Body*>(data))(block, worker);
    });
  }

  // Whether the process is another than the one that has the threads.
  bool IsForked() const;

 private:
  typedef void (*Call)(const void* body, int32_t block, int32_t worker);

  void Run(int32_t count, const void* body, Call call);
  void Work(int32_t worker);
  void Serve(int32_t worker);

  const int64_t process_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable has_job_;
  std::atomic<uint64_t> job_{0};  // counts the jobs
  bool is_open_ = false;          // whether workers may join the job
  bool is_over_ = false;
  std::atomic<int32_t> num_busy_{0};
  std::atomic<int32_t> next_block_{0};
  std::atomic<bool> has_failed_{false};
  int32_t count_ = 0;
  const void* body_ = nullptr;
  Call call_ = nullptr;
};

}  // namespace dle

#endif  // DEEPLAB2_EDGE_POOL_H_
