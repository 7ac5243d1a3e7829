#include "server/serving/status.h"

namespace relight::serving {

std::string_view Name(ModelState state) {
  switch (state) {
    case ModelState::kWaiting:
      return "waiting";
    case ModelState::kServing:
      return "serving";
    case ModelState::kFailed:
      return "failed";
    case ModelState::kUnloaded:
      return "unloaded";
  }
  return "unknown";
}

std::string_view Name(VersionState state) {
  switch (state) {
    case VersionState::kFound:
      return "found";
    case VersionState::kWaiting:
      return "waiting";
    case VersionState::kLoading:
      return "loading";
    case VersionState::kServing:
      return "serving";
    case VersionState::kLoaded:
      return "loaded";
    case VersionState::kRetired:
      return "retired";
    case VersionState::kRefused:
      return "refused";
    case VersionState::kRetrying:
      return "retrying";
    case VersionState::kPassedOver:
      return "passed over";
  }
  return "unknown";
}

std::string_view Name(HistoryEvent event) {
  switch (event) {
    case HistoryEvent::kServed:
      return "served";
    case HistoryEvent::kRefused:
      return "refused";
    case HistoryEvent::kRetrying:
      return "retrying";
    case HistoryEvent::kUnchanged:
      return "unchanged";
    case HistoryEvent::kRetired:
      return "retired";
    case HistoryEvent::kPinned:
      return "pinned";
    case HistoryEvent::kUnpinned:
      return "unpinned";
    case HistoryEvent::kRolledBack:
      return "rolled back";
    case HistoryEvent::kUnloaded:
      return "unloaded";
    case HistoryEvent::kSnapshot:
      return "snapshot";
    case HistoryEvent::kConfigChanged:
      return "config changed";
    case HistoryEvent::kConfigRefused:
      return "config refused";
    case HistoryEvent::kPushed:
      return "pushed";
  }
  return "unknown";
}

}  // namespace relight::serving
