// What lies in a watched folder: which files are candidates, and why the others are not.
//
// A candidate is a regular file of a known suffix, an index of shards, or a subfolder that holds
// exactly one of these. Scanning only looks: it opens nothing but indexes (to know their shards)
// and judges no content. It always reports the whole folder; deciding what to do is the version
// policy's business.
#ifndef RELIGHT_STORAGE_FOLDER_H_
#define RELIGHT_STORAGE_FOLDER_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/file_identity.h"

namespace relight::storage {

struct FolderEntry {
  std::string name;  // Path below the folder, any bytes: "step-100.pt", "checkpoint-5/model.pt".
  std::string stem;  // What a version is read from: the name (the subfolder's) without suffix.
  bool candidate = false;
  std::string reason;     // Why it is passed over; empty for a candidate.
  FileIdentity identity;  // Of what the name leads to. Only for candidates.
};

// Lists `folder`, sorted by name (as bytes). Symlinks to files and folders are followed. An index
// is a candidate once all shards that it names are there, and its identity is that of the index and
// its shards (IdentityOfAll). A name that cannot be looked at just now is passed over.
//
// NOT_FOUND where the folder does not exist, UNAVAILABLE where it cannot be listed just now;
// neither says that the files are gone. No entries and OK: the folder was seen empty.
absl::StatusOr<std::vector<FolderEntry>> ScanFolder(const std::string& folder);

// The file of the checkpoint that somebody calls `path`: that itself, or, for a folder, the one
// candidate in it (helpers such as optimizer.pt do not count) or in a subfolder of it.
//
// NOT_FOUND where a folder has none, FAILED_PRECONDITION that lists them where it has several,
// UNAVAILABLE where it cannot be listed,
// UNSUPPORTED_FORMAT (storage/error.h) for the folder of a torch.distributed.checkpoint. Says
// nothing about `path` where it is no folder.
absl::StatusOr<std::string> LocateCheckpoint(const std::string& path);

// Says that something in some folders may have changed. A hint: it can miss events (network file
// systems send none), so whoever uses it also polls.
//
// Thread-safe.
class FolderWatcher {
 public:
  virtual ~FolderWatcher() = default;
  // Replaces the watched set, subfolders included. Folders that do not exist, or came again under
  // the same name, are tried again at the next call, so call it after every scan: it is cheap.
  virtual void Watch(const std::vector<std::string>& folders) = 0;
  // Waits until something may have changed, `timeout` passed, or Wake was called.
  virtual void Wait(absl::Duration timeout) = 0;
  virtual void Wake() = 0;
};

// By inotify where the kernel grants it, else by timeouts alone.
std::unique_ptr<FolderWatcher> MakeFolderWatcher();
// By timeouts alone.
std::unique_ptr<FolderWatcher> MakeTimedFolderWatcher();

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_FOLDER_H_
