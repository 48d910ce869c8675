// Work in blocks, on several threads.

#ifndef DEEPLAB2_EDGE_PARALLEL_H_
#define DEEPLAB2_EDGE_PARALLEL_H_

#include <stdint.h>

#include <algorithm>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace dle {

// Calls body(first, last) for blocks that together are [0, count), one per thread; the
// last on the caller's. Rethrows what a body throws.
template <typename Body>
void ForBlocks(int32_t count, int32_t num_threads, const Body& body) {
  const int32_t num_blocks = std::max(std::min(num_threads, count), 1);
  std::vector<std::exception_ptr> errors(num_blocks);
  const auto run = [&](int32_t block) {
    try {
      body(static_cast<int32_t>(static_cast<int64_t>(count) * block / num_blocks),
           static_cast<int32_t>(static_cast<int64_t>(count) * (block + 1) / num_blocks));
    } catch (...) {
      errors[block] = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(num_blocks - 1);
  for (int32_t block = 0; block + 1 < num_blocks; ++block) {
    try {
      threads.emplace_back(run, block);
    } catch (const std::system_error&) {
      run(block);  // no more threads to be had
    }
  }
  run(num_blocks - 1);
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace dle

#endif  // DEEPLAB2_EDGE_PARALLEL_H_
