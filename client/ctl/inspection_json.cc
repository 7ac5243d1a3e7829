#include "client/ctl/inspection_json.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "client/ctl/inspection_text.h"
#include "client/ctl/output.h"
#include "client/ctl/value_text.h"
#include "storage/error.h"
#include "storage/input_file.h"
#include "storage/state_dict_finder.h"
#include "storage/strided.h"

namespace relight::ctl {
namespace {

using Json = nlohmann::ordered_json;
using storage::NodeId;
using storage::NodeKind;
using storage::TensorInfo;

constexpr std::size_t kMaxNameBytes = 4096;
// Of one object: adding a key takes time in the number of keys.
constexpr std::size_t kMostKeys = 10'000;

std::string Text(std::string_view bytes) { return Escape(bytes, kMaxNameBytes); }

Json TextOrNull(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json Texts(const std::vector<std::string>& names) {
  Json array = Json::array();
  for (const std::string& name : names) {
    if (array.size() == kMostListed) break;
    array.push_back(Text(name));
  }
  return array;
}

Json ErrorToJson(const absl::Status& status) {
  if (status.ok()) return nullptr;
  const auto code = storage::GetErrorCode(status);
  const std::string status_code = absl::StatusCodeToString(status.code());
  return {{"code", code.has_value() ? std::string(storage::Name(*code)) : status_code},
          {"status", status_code},
          {"message", Printable(std::string(status.message()))}};
}

class Writer {
 public:
  explicit Writer(const Inspection& inspection)
      : inspection_(inspection), checkpoint_(*inspection.checkpoint), tree_(checkpoint_.tree()) {}

  void AddTo(Json& json) const {
    const storage::Summary& summary = checkpoint_.summary();
    json["format"] = std::string(storage::Name(summary.format));
    json["pytorch"] = TextOrNull(VersionText(summary));
    std::uint64_t total = 0;
    for (const storage::InputFile& file : checkpoint_.files()) total += file.size_bytes();
    json["size_bytes"] = total;
    json["modified_at"] = FormatTimeForJson(checkpoint_.identity().modified);
    json["sha256"] = inspection_.files.empty() ? Json(nullptr) : Json(inspection_.files[0].sha256);
    json["big_endian"] = summary.big_endian;
    json["locations"] = Texts(summary.locations);
    json["opaque_classes"] = Texts(summary.opaque_classes);
    json["notes"] = Texts(summary.notes);
    json["files"] = Files();
    json["weights"] = Weights();
    json["storages"] = Storages();
    json["held"] = Held();
    json["omitted_held"] = inspection_.held.omitted_values;
    json["held_tensors"] = HeldTensors();
    json["omitted_held_tensors"] = inspection_.held.omitted_tensors;
  }

  Json Config(const std::string& name) const {
    if (!inspection_.config.has_value()) return nullptr;
    const ConfigFindings& config = *inspection_.config;
    Json misshaped = Json::array();
    for (const ShapeMismatch& shape : config.mismatch.misshaped) {
      misshaped.push_back(
          {{"key", Text(shape.name)}, {"checkpoint", shape.offered}, {"graph", shape.needed}});
    }
    Json mistyped = Json::array();
    for (const TypeMismatch& type : config.mismatch.mistyped) {
      mistyped.push_back({{"key", Text(type.name)},
                          {"checkpoint", std::string(Name(type.offered))},
                          {"graph", AcceptedTypes(type.needed)}});
    }
    const bool decided = inspection_.outcome != Outcome::kUndecided;
    return {
        {"path", Text(name)},
        {"accepts", decided ? Json(inspection_.outcome == Outcome::kAcceptable) : Json(nullptr)},
        {"parameters", config.graph_unknown ? Json(nullptr) : Json(config.parameters.size())},
        {"missing", Texts(config.mismatch.missing)},
        {"unexpected", Texts(config.mismatch.unexpected)},
        {"left_aside", Texts(config.left_aside)},
        {"misshaped", std::move(misshaped)},
        {"mistyped", std::move(mistyped)}};
  }

 private:
  Json Files() const {
    Json files = Json::array();
    const std::vector<storage::InputFile>& open = checkpoint_.files();
    for (std::size_t i = 0; i < open.size(); ++i) {
      Json file = {{"name", open[i].shown_name()}, {"size_bytes", open[i].size_bytes()}};
      if (i < inspection_.files.size()) {
        file["sha256"] = inspection_.files[i].sha256;
        file["records"] = Records(inspection_.files[i]);
      }
      files.push_back(std::move(file));
    }
    return files;
  }

  static Json Records(const storage::FileAudit& file) {
    Json records = Json::array();
    for (const storage::RecordAudit& record : file.records) {
      if (records.size() == kMostListed) break;
      records.push_back({{"name", Text(record.name)},
                         {"size_bytes", record.size_bytes},
                         {"crc32", std::string(storage::Name(record.crc))}});
    }
    return records;
  }

  Json TensorToJson(NodeId node) const {
    const TensorInfo& info = tree_.tensor(node);
    Json json = {{"dtype", std::string(Name(info.dtype))}, {"shape", info.shape}};
    if (tree_.Is(node, NodeKind::kUnsupportedTensor)) {
      json["unsupported"] = Text(tree_.text(node));
      return json;
    }
    json["size_bytes"] = storage::CountElements(info.shape) * ItemSize(info.dtype);
    json["storage"] = Text(checkpoint_.storages()[info.storage].key);
    json["offset"] = info.offset_elements;
    json["stride"] = info.stride;
    json["contiguous"] = storage::IsDense(info.shape, info.stride);
    json["parameter"] = info.is_parameter;
    json["requires_grad"] = info.requires_grad;
    if (info.conj) json["conj"] = true;
    if (info.neg) json["neg"] = true;
    return json;
  }

  Json WeightToJson(const InspectedWeight& weight) const {
    Json json = {{"key", Text(weight.key)}, {"original_key", Text(weight.original_key)}};
    json.update(TensorToJson(weight.node));
    json["tied_to"] = weight.tied_to.has_value()
                          ? Json(Text(inspection_.state_dict->entries[*weight.tied_to].key))
                          : Json(nullptr);
    json["shares_storage"] = weight.shares_storage;
    if (weight.non_finite.has_value()) {
      json["nan"] = weight.non_finite->nans;
      json["infinite"] = weight.non_finite->infinities;
    }
    return json;
  }

  Json Weights() const {
    if (!inspection_.state_dict.has_value()) return nullptr;
    const storage::StateDict& found = *inspection_.state_dict;
    Json tensors = Json::array();
    for (const InspectedWeight& weight : inspection_.weights) {
      tensors.push_back(WeightToJson(weight));
    }
    return {{"at", Text(found.location)},
            {"module_class", TextOrNull(Text(found.module_class))},
            {"stripped_prefix", TextOrNull(Text(found.stripped_prefix))},
            {"also_at", Texts(found.other_locations)},
            {"other_keys", Texts(found.other_keys)},
            {"digest",
             inspection_.digest.has_value() ? Json(inspection_.digest->ToHex()) : Json(nullptr)},
            {"error", ErrorToJson(inspection_.weights_error)},
            {"elements", inspection_.elements},
            {"element_bytes", inspection_.element_bytes},
            {"stored_bytes", inspection_.held.weight_bytes},
            {"metadata_versions", MetadataVersions()},
            {"tensors", std::move(tensors)},
            {"omitted_tensors", inspection_.omitted_weights}};
  }

  // Module path to the version that it gave itself.
  Json MetadataVersions() const {
    Json versions = Json::object();
    const NodeId metadata = storage::MetadataOf(tree_, inspection_.state_dict->container);
    if (metadata == storage::kNoNode || !tree_.IsDict(metadata)) return nullptr;
    for (const auto& [module, values] : tree_.pairs(metadata)) {
      if (versions.size() == kMostKeys) break;
      const NodeId version =
          tree_.IsDict(values) ? tree_.Find(values, "version") : storage::kNoNode;
      versions.push_back({Text(KeyText(tree_, module)), version == storage::kNoNode
                                                            ? Json(nullptr)
                                                            : ValueJson(checkpoint_, version)});
    }
    return versions;
  }

  Json Storages() const {
    Json storages = Json::array();
    for (const storage::StorageInfo& info : checkpoint_.storages()) {
      if (storages.size() == kMostListed) break;
      storages.push_back(
          {{"key", Text(info.key)},
           {"dtype", info.untyped ? Json(nullptr) : Json(std::string(Name(info.dtype)))},
           {"size_bytes", info.size_bytes},
           {"location", Text(info.location)},
           {"file", info.file},
           {"crc32", info.crc32.has_value() ? Json(*info.crc32) : Json(nullptr)}});
    }
    return storages;
  }

  template <typename Key>
  Json Settings(const std::vector<std::pair<Key, NodeId>>& settings, auto key_text) const {
    Json json = Json::object();
    for (const auto& [key, value] : settings) {
      if (json.size() == kMostKeys) break;
      json.push_back({Text(key_text(key)), ValueJson(checkpoint_, value)});
    }
    return json;
  }

  Json OptimizerToJson(const storage::OptimizerView& optimizer) const {
    Json groups = Json::array();
    for (const storage::OptimizerGroup& group : optimizer.groups) {
      groups.push_back(
          {{"parameters", group.parameters},
           {"settings", Settings(group.settings, [](const std::string& name) { return name; })}});
    }
    return {{"kind", optimizer.kind},
            {"states", optimizer.states},
            {"tensors", optimizer.tensors},
            {"step", optimizer.step == storage::kNoNode ? Json(nullptr)
                                                        : ValueJson(checkpoint_, optimizer.step)},
            {"groups", std::move(groups)}};
  }

  Json Held() const {
    Json held = Json::array();
    for (const HeldValue& value : inspection_.held.values) {
      Json json = {{"at", Text(value.at)},
                   {"kind", std::string(Name(value.kind))},
                   {"tensors", value.tensors},
                   {"stored_bytes", value.stored_bytes}};
      if (value.optimizer.has_value()) {
        json["optimizer"] = OptimizerToJson(*value.optimizer);
      } else if (value.kind == HeldKind::kSchedule || value.kind == HeldKind::kScaler) {
        json["guess"] = TextOrNull(value.guess);
        json["values"] =
            Settings(tree_.pairs(value.node), [this](NodeId key) { return KeyText(tree_, key); });
      } else if (value.kind == HeldKind::kObject || value.kind == HeldKind::kModule) {
        json["class"] = Text(storage::ClassName(tree_, value.node));
      } else {
        json["value"] = ValueJson(checkpoint_, value.node);
      }
      held.push_back(std::move(json));
    }
    return held;
  }

  Json HeldTensors() const {
    Json tensors = Json::array();
    for (const HeldTensor& tensor : inspection_.held.tensors) {
      Json json = {{"at", Text(tensor.at)}};
      json.update(TensorToJson(tensor.node));
      tensors.push_back(std::move(json));
    }
    return tensors;
  }

  const Inspection& inspection_;
  const storage::Checkpoint& checkpoint_;
  const storage::Tree& tree_;
};

}  // namespace

Json ToJson(const Inspection& inspection, const std::string& config_name) {
  Json json = {{"path", Text(inspection.path)},
               {"outcome", std::string(Name(inspection.outcome))},
               {"error", ErrorToJson(inspection.error)}};
  if (!inspection.checkpoint.has_value()) return json;
  const Writer writer(inspection);
  json["config"] = writer.Config(config_name);
  writer.AddTo(json);
  return json;
}

}  // namespace relight::ctl
