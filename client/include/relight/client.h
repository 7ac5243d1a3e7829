// Asks a relight server (or any other that speaks the Open Inference Protocol, version 2) for
// answers.
//
//   absl::StatusOr<Client> client = Client::Connect("localhost:8001");
//   InferRequest request;
//   request.model = "simplenet";
//   request.inputs.push_back(MakeTensor<float>("x", {1, 10}, values));
//   absl::StatusOr<InferResponse> response = client->Infer(std::move(request));
//
// Errors carry the code that the server gave (INVALID_ARGUMENT for a bad tensor, NOT_FOUND for an
// unknown model or version, UNAVAILABLE for a full queue, no checkpoint yet, or no server) and its
// message.
//
// Thread-safety: all methods may be called from several threads at once. One Client is one
// connection; share it.
#ifndef RELIGHT_CLIENT_H_
#define RELIGHT_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "relight/export.h"
#include "relight/options.h"
#include "relight/tensor.h"

namespace relight::client {

struct InferRequest {
  std::string model;
  std::optional<std::int64_t> version;  // Absent: the newest that is served.
  std::string id;                       // Comes back in the response.
  std::vector<Tensor> inputs;
  std::vector<std::string> outputs;  // Names of those wanted; empty for all.
};

struct InferResponse {
  std::string model;
  std::string id;
  // Which weights answered. `generation` and `weights_digest` stay 0 and empty with servers other
  // than relight; `version` is what the server calls it.
  std::string version;
  std::uint64_t generation = 0;
  std::string weights_digest;
  std::vector<Tensor> outputs;

  // nullptr where there is no such output. Valid while the response is.
  const Tensor* Find(std::string_view name) const {
    for (const Tensor& output : outputs) {
      if (output.name == name) return &output;
    }
    return nullptr;
  }
};

struct ServerMetadata {
  std::string name;
  std::string version;
  std::vector<std::string> extensions;
};

struct TensorMetadata {
  std::string name;
  std::string datatype;             // As the server spells it; ParseDataType knows the usual ones.
  std::vector<std::int64_t> shape;  // -1 stands for a free dimension.
};

struct ModelMetadata {
  std::string name;
  std::vector<std::string> versions;
  std::string platform;
  std::vector<TensorMetadata> inputs;
  std::vector<TensorMetadata> outputs;
};

// How often, and how long in all.
struct DurationStatistics {
  std::uint64_t count = 0;
  absl::Duration total;
};

struct BatchStatistics {
  std::uint64_t batch_size = 0;
  DurationStatistics compute;
};

// Of one version of a model.
struct VersionStatistics {
  std::string model;
  std::string version;
  std::optional<absl::Time> last_inference;
  std::uint64_t inference_count = 0;  // Rows.
  std::uint64_t execution_count = 0;  // Batches.
  DurationStatistics success;
  DurationStatistics fail;
  DurationStatistics queue;
  DurationStatistics compute_input;
  DurationStatistics compute_infer;
  DurationStatistics compute_output;
  std::vector<BatchStatistics> batches;
};

struct IndexEntry {
  std::string model;
  std::string version;
  std::string state;  // "READY", "UNAVAILABLE", ...
  std::string reason;
};

enum class Health : std::uint8_t { kUnknown, kServing, kNotServing, kServiceUnknown };

class RELIGHT_CLIENT_API Client {
 public:
  // `target` is "host:port" or "unix:/path", the path as it stands on disk. INVALID_ARGUMENT for
  // one that cannot be either; UNAVAILABLE where options.connect_timeout passes without a server.
  static absl::StatusOr<Client> Connect(const std::string& target,
                                        const ConnectOptions& options = {});

  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  // Cancels the calls of InferAsync that are under way and returns once their callbacks have.
  ~Client();

  absl::StatusOr<InferResponse> Infer(InferRequest request, const CallOptions& options = {});

  // `done` is called exactly once, on one of the library's threads or, for a request that is
  // refused before it is sent, on this one; it must neither block nor destroy this Client.
  void InferAsync(InferRequest request, std::function<void(absl::StatusOr<InferResponse>)> done,
                  const CallOptions& options = {});

  absl::StatusOr<bool> ServerLive(const CallOptions& options = {});
  absl::StatusOr<bool> ServerReady(const CallOptions& options = {});
  absl::StatusOr<bool> ModelReady(const std::string& model,
                                  std::optional<std::int64_t> version = std::nullopt,
                                  const CallOptions& options = {});
  absl::StatusOr<client::ServerMetadata> ServerMetadata(const CallOptions& options = {});
  absl::StatusOr<client::ModelMetadata> ModelMetadata(
      const std::string& model, std::optional<std::int64_t> version = std::nullopt,
      const CallOptions& options = {});
  // Of every version that is loaded; of all models where `model` is empty.
  absl::StatusOr<std::vector<VersionStatistics>> Statistics(const std::string& model = "",
                                                            const CallOptions& options = {});
  absl::StatusOr<std::vector<IndexEntry>> RepositoryIndex(bool only_ready = false,
                                                          const CallOptions& options = {});

  // The standard health protocol; an empty name asks for the whole server. NOT_FOUND for a service
  // that the server does not know.
  absl::StatusOr<Health> CheckHealth(const std::string& service = "",
                                     const CallOptions& options = {});
  // Calls `changed` with the health now and after every change, on this thread, until it returns
  // false (OK) or the stream ends (the reason).
  absl::Status WatchHealth(const std::string& service, const std::function<bool(Health)>& changed,
                           const CallOptions& options = {});

 private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace relight::client

#endif  // RELIGHT_CLIENT_H_
