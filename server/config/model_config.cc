#include "server/config/model_config.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <regex>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checked_math.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "relight/v1/model_config.pb.h"
#include "server/config/checkpoints_reader.h"
#include "server/config/config_errors.h"
#include "server/config/config_file.h"
#include "server/config/golden_requests_reader.h"
#include "server/config/graph_reader.h"
#include "server/config/text_proto.h"
#include "server/network/free_dims.h"

namespace relight::config {
namespace {

constexpr std::int64_t kDefaultMaxBatchSize = 32;
constexpr std::int64_t kLargestBatchSize = std::int64_t{1} << 20;
constexpr std::int64_t kLargestFreeDim = std::int64_t{1} << 20;
constexpr absl::Duration kLongestQueueDelay = absl::Minutes(10);
constexpr std::uint32_t kMostPriorityLevels = 100;
constexpr std::size_t kMaxPatternBytes = 256;
constexpr int kMaxCudaDevices = 128;

bool HasFreeFirstDimension(const std::vector<TensorSpec>& specs) {
  for (const TensorSpec& spec : specs) {
    if (spec.shape.empty() || spec.shape[0] >= 0) return false;
  }
  return true;
}

// Turns one parsed message into a ModelConfig. Every method adds its errors and goes on.
class Reader {
 public:
  Reader(const v1::ModelConfig& proto, const Place& place, ConfigErrors& errors)
      : proto_(proto), place_(place), errors_(errors) {}

  ModelConfig Read(const std::string& folder) {
    config_.folder = folder;
    ReadName();
    ReadGraph(proto_, place_, config_, errors_);
    ReadDevice();
    ReadPrecision();
    ReadBatching();
    ReadCheckpoints(proto_.checkpoints(), place_.In("checkpoints", proto_.checkpoints()), config_,
                    errors_);
    ReadVersion();
    ReadWarmUp();
    ReadArenas();
    if (proto_.has_cuda_graphs()) config_.cuda_graphs = proto_.cuda_graphs();
    ReadTrainingState();
    config_.allow_non_finite = proto_.accept().allow_non_finite();
    ReadGoldenRequests(proto_.accept(), place_.In("accept", proto_.accept()), config_, errors_);
    return std::move(config_);
  }

 private:
  void ReadName();
  void ReadDevice();
  std::optional<DeviceChoice> ParseDevice(const std::string& text) const;
  void ReadPrecision();
  void ReadBatching();
  void ReadMaxBatchSize(const Place& place);
  void ReadQueue(const Place& place);
  void ReadPriorities(const Place& place);
  void ReadLevelPolicies(const Place& place);
  std::string BatchingObstacle() const;
  void ReadVersion();
  void CheckPattern(const Place& place);
  void ReadWarmUp();
  void ReadArenas();
  void ReadTrainingState();

  const v1::ModelConfig& proto_;
  const Place& place_;
  ConfigErrors& errors_;
  ModelConfig config_;
};

void Reader::ReadName() {
  std::filesystem::path path(config_.folder);
  if (!path.has_filename()) path = path.parent_path();
  config_.name = path.filename().string();
  const std::string& name = config_.name;
  if (name.empty() || name == "." || name == "..") {
    errors_.Add(0, "the folder has no name, and a model is named after its folder");
  } else if (!IsUtf8(name) || Escape(name, name.size() * 4) != name) {
    errors_.Add(0, absl::StrCat("the folder's name ", Escape(name),
                                " cannot name a model: it must be UTF-8 text without control "
                                "characters and backslashes"));
  }
}

std::optional<DeviceChoice> Reader::ParseDevice(const std::string& text) const {
  using Kind = DeviceChoice::Kind;
  if (text.empty() || text == "auto") return DeviceChoice{.kind = Kind::kAuto};
  if (text == "cpu") return DeviceChoice{.kind = Kind::kCpu};
  constexpr std::size_t kPrefix = sizeof("cuda:") - 1;
  if (!text.starts_with("cuda:")) return std::nullopt;
  int index = -1;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + kPrefix, end, index);
  if (error != std::errc() || stop != end || index < 0 || index >= kMaxCudaDevices) {
    return std::nullopt;
  }
  return DeviceChoice{.kind = Kind::kCuda, .index = index};
}

void Reader::ReadDevice() {
  if (const auto device = ParseDevice(proto_.device())) {
    config_.device = *device;
    return;
  }
  errors_.Add(place_.Line("device"),
              absl::StrCat("device \"", Escape(proto_.device()),
                           "\" is none of \"auto\", \"cpu\" and \"cuda:N\" with N from 0 to ",
                           kMaxCudaDevices - 1));
}

void Reader::ReadPrecision() {
  switch (proto_.precision()) {
    case v1::FP32:
      config_.precision = Precision::kFloat32;
      break;
    case v1::BF16:
      config_.precision = Precision::kBFloat16;
      break;
    case v1::FP16:
      config_.precision = Precision::kFloat16;
      if (config_.device.kind == DeviceChoice::Kind::kCpu) {
        errors_.Add(place_.Line("precision"),
                    "precision FP16 does not exist on the CPU: use FP32 or BF16 there");
      }
      break;
    case v1::AS_SAVED:
      config_.precision = Precision::kAsSaved;
      break;
    default:
      break;
  }
}

// What keeps requests from sharing a batch; empty where nothing does.
std::string Reader::BatchingObstacle() const {
  if (const auto* network = std::get_if<network::Network>(&config_.graph)) {
    return network->batching_obstacle();
  }
  if (HasFreeFirstDimension(config_.inputs) && HasFreeFirstDimension(config_.outputs)) return "";
  return "some input or output has no free (-1) first dimension";
}

// Of one row; every free dimension may be 1.
std::uint64_t LeastRequestBytes(const std::vector<TensorSpec>& inputs) {
  std::uint64_t sum = 0;
  for (const TensorSpec& input : inputs) {
    std::optional<std::uint64_t> bytes = ItemSize(input.dtype);
    for (const std::int64_t size : input.shape) {
      if (bytes.has_value())
        bytes = CheckedMul<std::uint64_t>(*bytes, size < 0 ? 1 : static_cast<std::uint64_t>(size));
    }
    sum += bytes.value_or(0);
  }
  return sum;
}

void Reader::ReadBatching() {
  const Place place = place_.In("batching", proto_.batching());
  ReadMaxBatchSize(place);
  ReadQueue(place);
  ReadPriorities(place);
}

void Reader::ReadMaxBatchSize(const Place& place) {
  const v1::Batching& batching = proto_.batching();
  Batching& out = config_.batching;
  // A network that did not build says nothing about batches; its own errors come first.
  const auto* const network = std::get_if<network::Network>(&config_.graph);
  const bool known = network == nullptr || !network->steps().empty();
  const std::string obstacle = known ? BatchingObstacle() : "";
  if (!batching.has_max_batch_size()) {
    out.max_batch_size = obstacle.empty() ? kDefaultMaxBatchSize : 0;
  } else {
    out.max_batch_size = batching.max_batch_size();
    const int line = place.Line("max_batch_size");
    if (out.max_batch_size > kLargestBatchSize) {
      errors_.Add(line, absl::StrCat("max_batch_size is ", out.max_batch_size, ", the most is ",
                                     kLargestBatchSize));
    } else if (out.max_batch_size > 0 && !obstacle.empty()) {
      errors_.Add(line, absl::StrCat("max_batch_size is ", out.max_batch_size,
                                     ", but requests cannot share a batch: ", obstacle));
    }
  }
  for (int i = 0; i < batching.preferred_batch_size_size(); ++i) {
    const std::int64_t size = batching.preferred_batch_size(i);
    if (size < 1 || size > out.max_batch_size) {
      errors_.Add(
          place.Line("preferred_batch_size", i),
          absl::StrCat("preferred_batch_size is ", size,
                       ", it must be from 1 to max_batch_size, which is ", out.max_batch_size));
    }
    out.preferred_batch_sizes.push_back(size);
  }
}

void Reader::ReadQueue(const Place& place) {
  const v1::Batching& batching = proto_.batching();
  Batching& out = config_.batching;
  const std::uint64_t delay_us = batching.max_queue_delay_microseconds();
  if (delay_us > static_cast<std::uint64_t>(absl::ToInt64Microseconds(kLongestQueueDelay))) {
    errors_.Add(place.Line("max_queue_delay_microseconds"),
                absl::StrCat("max_queue_delay_microseconds is ", delay_us, ", the most is ",
                             absl::ToInt64Microseconds(kLongestQueueDelay)));
  } else {
    out.max_queue_delay = absl::Microseconds(static_cast<std::int64_t>(delay_us));
  }
  if (delay_us > 0 && out.max_batch_size == 0) {
    errors_.Add(place.Line("max_queue_delay_microseconds"),
                "max_queue_delay_microseconds has no meaning while max_batch_size is 0: nothing is "
                "put together");
  }
  if (batching.has_max_queue_size()) {
    out.max_queue_size = batching.max_queue_size();
    if (out.max_queue_size == 0) {
      errors_.Add(place.Line("max_queue_size"), "max_queue_size is 0, the least is 1");
    }
  }
  if (batching.has_max_queue_bytes()) {
    out.max_queue_bytes = batching.max_queue_bytes();
    const std::uint64_t least = std::max<std::uint64_t>(LeastRequestBytes(config_.inputs), 1);
    if (out.max_queue_bytes < least) {
      errors_.Add(place.Line("max_queue_bytes"),
                  absl::StrCat("max_queue_bytes is ", out.max_queue_bytes, ", the least is ", least,
                               ": what one request takes"));
    }
  }
}

QueuePolicy ToQueuePolicy(const v1::QueuePolicy& policy) {
  QueuePolicy out;
  if (const std::uint64_t timeout_us = policy.default_timeout_microseconds(); timeout_us > 0) {
    constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
    out.default_timeout = absl::Microseconds(std::min(timeout_us, kMost));
  }
  out.allow_timeout_override =
      !policy.has_allow_timeout_override() || policy.allow_timeout_override();
  out.delay_late = policy.timeout_action() == v1::QueuePolicy::DELAY;
  if (policy.max_queue_size() > 0) out.max_queue_size = policy.max_queue_size();
  return out;
}

void Reader::ReadPriorities(const Place& place) {
  const v1::Batching& batching = proto_.batching();
  Batching& out = config_.batching;
  const std::uint32_t levels = batching.priority_levels();
  out.levels.assign(std::clamp<std::uint32_t>(levels, 1, kMostPriorityLevels),
                    ToQueuePolicy(batching.default_queue_policy()));
  if (levels > kMostPriorityLevels) {
    errors_.Add(place.Line("priority_levels"),
                absl::StrCat("priority_levels is ", levels, ", the most is ", kMostPriorityLevels));
    return;
  }
  const std::uint32_t level = batching.default_priority_level();
  if (levels == 0 &&
      (batching.has_default_priority_level() || !batching.priority_queue_policy().empty())) {
    errors_.Add(place.Line("priority_levels"),
                "default_priority_level and priority_queue_policy have no meaning while "
                "priority_levels is 0");
  } else if (levels > 0 && (level < 1 || level > levels)) {
    errors_.Add(
        place.Line("default_priority_level"),
        absl::StrCat("default_priority_level is ",
                     batching.has_default_priority_level() ? absl::StrCat(level) : "missing",
                     ", it must be from 1 to priority_levels, which is ", levels));
  } else {
    out.default_level = std::max<std::uint32_t>(level, 1) - 1;
    ReadLevelPolicies(place);
  }
}

void Reader::ReadLevelPolicies(const Place& place) {
  const v1::Batching& batching = proto_.batching();
  std::set<std::uint32_t> seen;
  for (int i = 0; i < batching.priority_queue_policy_size(); ++i) {
    const v1::PriorityQueuePolicy& policy = batching.priority_queue_policy(i);
    const std::uint32_t level = policy.key();
    const int line = place.Line("priority_queue_policy", i);
    if (level < 1 || level > batching.priority_levels()) {
      errors_.Add(line, absl::StrCat("priority_queue_policy: key is ", level,
                                     ", it must be from 1 to priority_levels, which is ",
                                     batching.priority_levels()));
    } else if (!seen.insert(level).second) {
      errors_.Add(line, absl::StrCat("priority_queue_policy: key ", level, " is there twice"));
    } else {
      config_.batching.levels[level - 1] = ToQueuePolicy(policy.value());
    }
  }
}

void Reader::ReadVersion() {
  const v1::VersionPolicy& version = proto_.version();
  const Place place = place_.In("version", version);
  switch (version.from()) {
    case v1::VersionPolicy::NAME:
      config_.version.from = VersionSource::kName;
      break;
    case v1::VersionPolicy::MTIME:
      config_.version.from = VersionSource::kMtime;
      break;
    default:
      break;
  }
  config_.version.pattern = version.pattern();
  if (version.pattern().empty()) return;
  if (version.from() == v1::VersionPolicy::MTIME) {
    errors_.Add(place.Line("pattern"),
                "version: pattern reads names, but from is MTIME: remove one of them");
  }
  CheckPattern(place);
}

void Reader::CheckPattern(const Place& place) {
  const std::string& pattern = config_.version.pattern;
  const int line = place.Line("pattern");
  const std::string subject = absl::StrCat("version: pattern \"", Escape(pattern), "\"");
  if (pattern.size() > kMaxPatternBytes) {
    errors_.Add(line, absl::StrCat("version: pattern has ", pattern.size(), " bytes, the most is ",
                                   kMaxPatternBytes));
    return;
  }
  try {
    const std::regex regex(pattern, std::regex::ECMAScript);
    if (regex.mark_count() != 1) {
      errors_.Add(line, absl::StrCat(subject, " has ", regex.mark_count(),
                                     " groups, it needs exactly one: the version's digits, as in "
                                     "step-(\\\\d+)"));
    }
  } catch (const std::regex_error& error) {
    errors_.Add(line,
                absl::StrCat(subject, " is no ECMAScript regular expression: ", error.what()));
  }
}

void Reader::ReadWarmUp() {
  const v1::WarmUp& warm_up = proto_.warm_up();
  const Place place = place_.In("warm_up", warm_up);
  const std::int64_t most = config_.batching.max_batch_size;
  WarmUp& out = config_.warm_up;
  if (warm_up.batch_size().empty()) {
    out.batch_sizes.push_back(1);
    if (most > 1) out.batch_sizes.push_back(most);
  } else if (most == 0) {
    errors_.Add(place.Line("batch_size"),
                "warm_up: batch_size has no meaning while max_batch_size is 0: free_dim stands for "
                "every free dimension");
  }
  for (int i = 0; i < warm_up.batch_size_size(); ++i) {
    const std::int64_t size = warm_up.batch_size(i);
    if (most > 0 && (size < 1 || size > most)) {
      errors_.Add(place.Line("batch_size", i),
                  absl::StrCat("warm_up: batch_size is ", size,
                               ", it must be from 1 to max_batch_size, which is ", most));
    }
    out.batch_sizes.push_back(size);
  }
  if (!warm_up.has_free_dim()) {
    if (const auto* network = std::get_if<network::Network>(&config_.graph)) {
      const std::optional<std::int64_t> rows =
          most > 0 ? std::optional(std::int64_t{1}) : std::nullopt;
      out.free_dim = network::SmallestFreeDim(*network, rows);
    }
    return;
  }
  out.free_dim = warm_up.free_dim();
  if (out.free_dim < 1 || out.free_dim > kLargestFreeDim) {
    errors_.Add(place.Line("free_dim"), absl::StrCat("warm_up: free_dim is ", out.free_dim,
                                                     ", it must be from 1 to ", kLargestFreeDim));
  }
}

void Reader::ReadArenas() {
  if (!proto_.has_arenas()) return;
  if (proto_.arenas() != 1 && proto_.arenas() != 2) {
    errors_.Add(place_.Line("arenas"),
                absl::StrCat("arenas is ", proto_.arenas(), ", it can be 1 or 2"));
    return;
  }
  config_.arenas = static_cast<int>(proto_.arenas());
}

void Reader::ReadTrainingState() {
  switch (proto_.training_state()) {
    case v1::OPEN_FILE:
      config_.training_state = TrainingState::kOpenFile;
      break;
    case v1::NONE:
      config_.training_state = TrainingState::kNone;
      break;
    default:
      config_.training_state = TrainingState::kSpool;
      break;
  }
}

// "models/." and "models/.." have names too, only not in the text.
std::string Named(const std::string& folder) {
  const std::filesystem::path path(folder);
  const auto last = path.has_filename() ? path.filename() : path.parent_path().filename();
  if (last != "." && last != "..") return folder;
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path, error);
  return error ? folder : real.string();
}

absl::StatusOr<ModelConfigFile> Read(const std::filesystem::path& file, const std::string& folder) {
  RELIGHT_ASSIGN_OR_RETURN(std::string text, ReadSmallFile(file.string(), kMaxConfigBytes));
  return ModelConfigFile{
      .text = std::move(text), .folder = folder, .name = file.filename().string()};
}

absl::StatusOr<ModelConfigFile> ReadFrom(const std::string& folder) {
  const std::string named = Named(folder);
  return Read(std::filesystem::path(named) / kModelConfigName, named);
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view text, const std::string& folder,
                                             std::string_view file_name) {
  const std::string shown_name = Escape(file_name);
  ConfigErrors errors;
  v1::ModelConfig proto;
  Locations locations;
  if (!ParseTextProto(text, proto, locations, errors)) return errors.ToStatus(shown_name);
  const Place place(proto, &locations);
  ModelConfig config = Reader(proto, place, errors).Read(folder);
  if (absl::Status status = errors.ToStatus(shown_name); !status.ok()) return status;
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& folder) {
  RELIGHT_ASSIGN_OR_RETURN(const ModelConfigFile file, ReadFrom(folder));
  return ParseModelConfig(file.text, file.folder, file.name);
}

absl::StatusOr<ModelConfig> LoadModelConfigAt(const std::string& path) {
  RELIGHT_ASSIGN_OR_RETURN(const ModelConfigFile file, ReadModelConfigAt(path));
  return ParseModelConfig(file.text, file.folder, file.name);
}

absl::StatusOr<ModelConfigFile> ReadModelConfigAt(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return ReadFrom(path);
  const std::filesystem::path file(path);
  const std::string folder = file.has_parent_path() ? file.parent_path().string() : ".";
  return Read(path, Named(folder));
}

}  // namespace relight::config
