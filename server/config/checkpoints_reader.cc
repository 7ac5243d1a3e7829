#include "server/config/checkpoints_reader.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "server/config/key_rules.h"

namespace relight::config {
namespace {

constexpr absl::Duration kLongestSettling = absl::Hours(24);
constexpr std::size_t kMaxFolderBytes = 4096;

bool HasDotDot(const std::string& path) {
  for (const auto& part : std::filesystem::path(path)) {
    if (part == "..") return true;
  }
  return false;
}

void ReadRenameRules(const v1::Checkpoints& checkpoints, const Place& place,
                     std::vector<RenameRule>& out, ConfigErrors& errors) {
  for (int i = 0; i < checkpoints.rename_size(); ++i) {
    const v1::RenameRule& rule = checkpoints.rename(i);
    out.push_back({rule.pattern(), rule.replacement()});
    if (const absl::Status status = CheckKeyRule(out.back()); !status.ok()) {
      errors.Add(place.Line("rename", i), absl::StrCat("rename: ", std::string(status.message())));
    }
  }
}

void ReadIgnoredKeys(const v1::Checkpoints& checkpoints, const Place& place,
                     std::vector<std::string>& out, ConfigErrors& errors) {
  for (int i = 0; i < checkpoints.ignore_size(); ++i) {
    out.push_back(checkpoints.ignore(i));
    if (const absl::Status status = CheckKeyPattern(out.back()); !status.ok()) {
      errors.Add(place.Line("ignore", i), absl::StrCat("ignore: ", std::string(status.message())));
    }
  }
}

void ReadLimits(const v1::ReadLimits& limits, const Place& place, storage::ReadLimits& out,
                ConfigErrors& errors) {
  const auto read = [&](const char* field, bool given, std::uint64_t value, std::uint64_t most,
                        std::uint64_t& limit) {
    if (!given) return;
    if (value == 0 || value > most) {
      errors.Add(place.Line(field),
                 absl::StrCat(field, " is ", value, ", it must be from 1 to ", most));
    } else {
      limit = value;
    }
  };
  // Sizes and products of them stay far from where 64 bits end.
  constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 48;
  // Nodes, and places in a pickle or a string, are counted in 32 bits.
  constexpr std::uint64_t kMostCounted = std::uint64_t{1} << 31;
  read("max_file_bytes", limits.has_max_file_bytes(), limits.max_file_bytes(), kMostBytes,
       out.max_file_bytes);
  read("max_entries", limits.has_max_entries(), limits.max_entries(), kMostCounted,
       out.max_entries);
  read("max_pickle_bytes", limits.has_max_pickle_bytes(), limits.max_pickle_bytes(), kMostCounted,
       out.max_pickle_bytes);
  read("max_nodes", limits.has_max_nodes(), limits.max_nodes(), kMostCounted, out.max_nodes);
  read("max_string_bytes", limits.has_max_string_bytes(), limits.max_string_bytes(), kMostCounted,
       out.max_string_bytes);
  read("max_blob_bytes", limits.has_max_blob_bytes(), limits.max_blob_bytes(), kMostCounted,
       out.max_blob_bytes);
  read("max_tensor_bytes", limits.has_max_tensor_bytes(), limits.max_tensor_bytes(), kMostBytes,
       out.max_tensor_bytes);
  read("max_expanded_bytes", limits.has_max_expanded_bytes(), limits.max_expanded_bytes(),
       kMostBytes, out.max_expanded_bytes);
}

}  // namespace

void ReadCheckpoints(const v1::Checkpoints& checkpoints, const Place& place, ModelConfig& config,
                     ConfigErrors& errors) {
  Checkpoints& out = config.checkpoints;
  const std::string folder = checkpoints.folder().empty() ? "checkpoints" : checkpoints.folder();
  if (folder.size() > kMaxFolderBytes || folder.find('\0') != std::string::npos) {
    errors.Add(place.Line("folder"), "checkpoints.folder is no path");
  } else if (HasDotDot(folder)) {
    errors.Add(place.Line("folder"),
               absl::StrCat("checkpoints.folder \"", Escape(folder),
                            "\" must not contain \"..\": give a path below the model's folder or "
                            "an absolute one"));
  }
  out.folder = (std::filesystem::path(config.folder) / folder).string();
  out.state_dict_key = checkpoints.state_dict_key();
  out.strip_prefix = checkpoints.strip_prefix();
  out.require_crc = checkpoints.require_crc();
  out.reject_unknown_classes = checkpoints.reject_unknown_classes();

  const auto read_ms = [&](const char* field, std::uint64_t value, absl::Duration& duration) {
    const auto most = static_cast<std::uint64_t>(absl::ToInt64Milliseconds(kLongestSettling));
    if (value > most) {
      errors.Add(place.Line(field), absl::StrCat(field, " is ", value, ", the most is ", most));
    } else {
      duration = absl::Milliseconds(static_cast<std::int64_t>(value));
    }
  };
  if (checkpoints.has_settle_time_ms()) {
    read_ms("settle_time_ms", checkpoints.settle_time_ms(), out.settle_time);
  }
  if (checkpoints.has_torn_timeout_ms()) {
    read_ms("torn_timeout_ms", checkpoints.torn_timeout_ms(), out.torn_timeout);
  }
  if (checkpoints.has_strict()) out.strict = checkpoints.strict();
  ReadRenameRules(checkpoints, place, out.rename, errors);
  ReadIgnoredKeys(checkpoints, place, out.ignore, errors);
  ReadLimits(checkpoints.limits(), place.In("limits", checkpoints.limits()), out.limits, errors);
}

}  // namespace relight::config
