// The command init: drafts a model.textproto from a checkpoint.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "client/ctl/command.h"
#include "client/ctl/output.h"
#include "server/config/draft.h"
#include "storage/checkpoint.h"
#include "storage/state_dict.h"

namespace relight::ctl {
namespace {

constexpr char kFileName[] = "model.textproto";

constexpr char kDetails[] =
    R"(Drafts the model.textproto of a model from one of its checkpoints, so that nobody begins with an
empty file. A whole module (torch.save(model)) says which layers there are; a state dict only their
names and shapes, so what had to be guessed carries a comment that begins with "check:". Where they are
those of a family, such as ResNet or BERT, the draft is a line with its hyperparameters. Nothing in the
checkpoint is executed, and no server is asked.

Prints the draft, or writes it to --output: a file, or a folder to put model.textproto into. A file
that exists is never overwritten. With --json it prints {"path": ..., "model_textproto": ...}, where
the path is null without --output.

examples:
  relightctl init checkpoint.pt
  relightctl init checkpoint.pt --output models/simplenet
  relightctl init bundle.pt --key ema_state_dict --strip-prefix module.
)";

// Refuses what exists, even where two of us race.
absl::Status WriteNew(const std::string& path, const std::string& text) {
  UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file.valid() && errno == EEXIST) {
    return absl::AlreadyExistsError(
        absl::StrCat(Escape(path), " exists; remove it, or choose another --output"));
  }
  std::size_t written = 0;
  while (file.valid() && written < text.size()) {
    const ssize_t count = write(file.get(), text.data() + written, text.size() - written);
    if (count < 0 && errno != EINTR) break;
    if (count > 0) written += static_cast<std::size_t>(count);
  }
  if (file.valid() && written == text.size()) return absl::OkStatus();
  const int error = errno;
  if (file.valid()) unlink(path.c_str());
  const std::string message = absl::StrCat(Escape(path), ": ", std::strerror(error));
  return error == ENOENT ? absl::NotFoundError(message) : absl::FailedPreconditionError(message);
}

std::string OutputPath(const std::string& output) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(output, ignored)) return output;
  return (std::filesystem::path(output) / kFileName).string();
}

// To a daemon an I/O error may pass (UNAVAILABLE); here it is final, and a missing file is
// NOT_FOUND.
absl::StatusOr<storage::Checkpoint> Open(const std::string& path) {
  std::error_code ignored;
  const bool missing =
      std::filesystem::status(path, ignored).type() == std::filesystem::file_type::not_found;
  if (missing) return absl::NotFoundError(absl::StrCat(Escape(path), ": no such file"));
  absl::StatusOr<storage::Checkpoint> checkpoint = storage::Checkpoint::Open(path);
  if (absl::IsUnavailable(checkpoint.status())) {
    return absl::FailedPreconditionError(checkpoint.status().message());
  }
  return checkpoint;
}

absl::StatusOr<std::string> Draft(const Session& session) {
  const std::string& path = session.positional(0);
  config::DraftOptions draft;
  draft.file_name = std::filesystem::path(path).filename().string();
  draft.state_dict_key = session.arguments().Get("key").value_or("");
  draft.strip_prefix = session.arguments().Get("strip-prefix").value_or("");
  storage::StateDictOptions where;
  where.key = draft.state_dict_key;
  where.strip_prefix = draft.strip_prefix;
  RELIGHT_ASSIGN_OR_RETURN(const storage::Checkpoint checkpoint, Open(path));
  const absl::StatusOr<storage::StateDict> weights = storage::FindStateDict(checkpoint, where);
  if (!weights.ok()) {
    return absl::Status(weights.status().code(),
                        absl::StrCat(weights.status().message(),
                                     "\n--key says where in the file the state dict is, and "
                                     "--strip-prefix what its keys begin with"));
  }
  return config::DraftModelConfig(checkpoint.tree(), *weights, draft);
}

absl::Status Init(Session& session) {
  RELIGHT_ASSIGN_OR_RETURN(const std::string text, Draft(session));
  const std::optional<std::string> output = session.arguments().Get("output");
  nlohmann::ordered_json json = {{"path", nullptr}, {"model_textproto", text}};
  std::string report = text;
  if (output.has_value()) {
    const std::string path = OutputPath(*output);
    RELIGHT_RETURN_IF_ERROR(WriteNew(path, text));
    json["path"] = path;
    report = absl::StrCat("wrote ", Printable(path), "\n");
  }
  if (session.json()) {
    session.PrintJson(json);
  } else {
    session.Print(report);
  }
  return absl::OkStatus();
}

}  // namespace

Command InitCommand() {
  return {"init",
          "CHECKPOINT",
          1,
          1,
          "draft a model.textproto from a checkpoint",
          kDetails,
          {{"output", "PATH", "write it to this file, or into this folder"},
           {"key", "KEYS", "where the state dict is, as keys joined by /"},
           {"strip-prefix", "TEXT", "a prefix to strip from every key"}},
          Init};
}

}  // namespace relight::ctl
