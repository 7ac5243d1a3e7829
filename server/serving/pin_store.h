// Which models are pinned to which version, kept in a file so that a restart serves the same.
#ifndef RELIGHT_SERVER_SERVING_PIN_STORE_H_
#define RELIGHT_SERVER_SERVING_PIN_STORE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace relight::serving {

// Thread-compatible: the manager's own.
class PinStore {
 public:
  static constexpr char kFileName[] = "pins.json";

  // Reads `state_dir`/pins.json, if there is one. An empty `state_dir` keeps pins in memory alone.
  // INVALID_ARGUMENT where the file is no such thing: nobody's pins are thrown away silently.
  static absl::StatusOr<PinStore> Open(const std::string& state_dir);

  std::optional<std::int64_t> Get(const std::string& model) const;
  // On error nothing has changed; the file may hold the new pins where it could not be put back,
  // and the next call writes it in any case.
  absl::Status Set(const std::string& model, std::optional<std::int64_t> version);

 private:
  explicit PinStore(std::string state_dir) : state_dir_(std::move(state_dir)) {}
  absl::Status Save(const std::map<std::string, std::int64_t>& pins) const;

  std::string state_dir_;
  std::map<std::string, std::int64_t> pins_;
  bool unsure_ = false;  // Whether the file holds `pins_`.
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_PIN_STORE_H_
