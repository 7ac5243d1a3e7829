// Makes checkpoint files for tests: what torch.save would write of {"w": tensor}, alone or in a
// bundle with a training state.
#ifndef RELIGHT_TESTS_SERVER_SERVING_CHECKPOINT_FILES_H_
#define RELIGHT_TESTS_SERVER_SERVING_CHECKPOINT_FILES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "storage/tree.h"
#include "storage/writer.h"

namespace relight::serving {

class FloatStorages final : public storage::StorageSource {
 public:
  std::uint32_t Add(std::vector<float> values) {
    storages_.push_back(std::move(values));
    return static_cast<std::uint32_t>(storages_.size() - 1);
  }
  absl::Status Stream(std::uint32_t index, const storage::ByteSink& sink) const override {
    return sink({reinterpret_cast<const std::byte*>(storages_[index].data()), SizeBytes(index)});
  }
  std::uint64_t SizeBytes(std::uint32_t index) const override {
    return storages_[index].size() * sizeof(float);
  }
  DType ElementType(std::uint32_t) const override { return DType::kFloat32; }

 private:
  std::vector<std::vector<float>> storages_;
};

// The bytes of a file whose weight "w" is `weights`. With `momentum`, a bundle of model_state_dict,
// epoch and an optimizer_state_dict that holds these values.
inline std::string CheckpointBytes(std::vector<float> weights, std::vector<float> momentum = {},
                                   const std::string& key = "w") {
  storage::Tree tree;
  FloatStorages storages;
  const auto tensor = [&](std::vector<float> values) {
    storage::TensorInfo info;
    info.shape = {static_cast<std::int64_t>(values.size())};
    info.stride = {1};
    info.storage = storages.Add(std::move(values));
    return tree.AddTensor(std::move(info));
  };
  const auto set = [&](storage::NodeId dict, std::string_view name, storage::NodeId value) {
    tree.SetItem(dict, tree.AddText(storage::NodeKind::kString, name), value);
  };
  const storage::NodeId state = tree.Add(storage::NodeKind::kOrderedDict);
  set(state, key, tensor(std::move(weights)));
  storage::NodeId root = state;
  if (!momentum.empty()) {
    root = tree.Add(storage::NodeKind::kDict);
    const storage::NodeId optimizer = tree.Add(storage::NodeKind::kDict);
    set(optimizer, "momentum", tensor(std::move(momentum)));
    set(root, "epoch", tree.AddInt(3));
    set(root, "model_state_dict", state);
    set(root, "optimizer_state_dict", optimizer);
  }
  tree.set_root(root);
  std::string file;
  const auto report =
      storage::WriteCheckpoint(tree, root, storages, {}, [&](absl::Span<const std::byte> bytes) {
        file.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        return absl::OkStatus();
      });
  return report.ok() ? file : std::string(report.status().message());
}

// The same weight as safetensors, which have no checksums.
inline std::string SafetensorsBytes(float weight) {
  const std::string header = R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  const std::uint64_t length = header.size();
  std::string file(sizeof(length) + header.size() + sizeof(weight), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  std::memcpy(file.data() + sizeof(length), header.data(), header.size());
  std::memcpy(file.data() + sizeof(length) + header.size(), &weight, sizeof(weight));
  return file;
}

}  // namespace relight::serving

#endif  // RELIGHT_TESTS_SERVER_SERVING_CHECKPOINT_FILES_H_
