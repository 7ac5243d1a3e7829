// Requests with known answers, which each checkpoint is asked before it serves.
#ifndef RELIGHT_SERVER_SERVING_GOLDEN_REQUESTS_H_
#define RELIGHT_SERVER_SERVING_GOLDEN_REQUESTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/config/model_config.h"
#include "server/model/graph.h"
#include "server/model/host_tensor.h"
#include "server/serving/request_path.h"

namespace relight::serving {

// Of a model's golden tensors, which stay in memory, with what their files hold beside them in the
// same storages: at most as much again.
inline constexpr std::uint64_t kMaxGoldenBytes = std::uint64_t{256} << 20;

// Immutable, so thread-safe.
class GoldenRequests {
 public:
  // Reads the files of `requests`. What is wrong with one, which it names: what opening a
  // checkpoint says, INVALID_ARGUMENT where its tensors are no request to a model with this
  // signature, or no answers by it, or where all together have more than kMaxGoldenBytes.
  static absl::StatusOr<GoldenRequests> Read(absl::Span<const config::GoldenRequest> requests,
                                             const Signature& signature);

  bool empty() const { return requests_.empty(); }

  // Asks `model` on the calling thread, and `serving`, if it is not null, what its answer may be no
  // further from than `max_change`. A status other than OK from `between`, which is called before
  // each forward, ends it with that.
  // FAILED_PRECONDITION where answers are not as they should be: each output with its numbers, up
  // to eight; else what `model` failed with. What `serving` fails at is compared with nothing.
  absl::Status Check(const model::BoundModel& model, const model::BoundModel* serving,
                     absl::FunctionRef<absl::Status()> between) const;

 private:
  struct Request {
    config::GoldenRequest rules;
    std::int64_t rows = 0;
    std::vector<model::HostTensor> inputs;                   // In the signature's order.
    std::vector<std::optional<model::HostTensor>> expected;  // Likewise.
  };

  // Takes what it keeps off `bytes_left`.
  static absl::StatusOr<Request> ReadRequest(const config::GoldenRequest& rules,
                                             const Signature& signature, std::uint64_t& bytes_left);
  // What is wrong with the answer, a line for each thing. `served`: the serving version's, or none.
  std::vector<std::string> Problems(const Request& request,
                                    absl::Span<const model::HostTensor> answer,
                                    absl::Span<const model::HostTensor> served) const;

  Signature signature_;
  std::vector<Request> requests_;
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_GOLDEN_REQUESTS_H_
