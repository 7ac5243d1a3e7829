// Which models there are: the sub-folders of the repository that hold a model.textproto.
#ifndef RELIGHT_SERVER_SERVING_REPOSITORY_H_
#define RELIGHT_SERVER_SERVING_REPOSITORY_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace relight::serving {

// Names of folders, sorted; hidden ones are skipped.
struct ModelListing {
  std::vector<std::string> models = {};
  std::vector<std::string> unseen = {};  // May be models: they cannot be looked at just now.
};

// NOT_FOUND where the repository does not exist, UNAVAILABLE where it cannot be listed just now.
absl::StatusOr<ModelListing> ListModels(const std::string& repository);

// Says when a model that is missing counts as removed: after two listings and five seconds. A
// repository without any models removes none: a volume that went away looks like that too.
//
// Thread-compatible.
class RemovalCounter {
 public:
  // Takes in one full listing; returns those of `known` that are removed.
  std::vector<std::string> Count(const ModelListing& listing, const std::vector<std::string>& known,
                                 absl::Time now);

 private:
  struct Missing {
    int listings = 0;
    absl::Time since;
  };
  std::map<std::string, Missing> missing_;
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_REPOSITORY_H_
