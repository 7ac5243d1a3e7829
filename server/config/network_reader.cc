#include "server/config/network_reader.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "server/network/arguments.h"
#include "server/network/nearest_name.h"
#include "storage/dtype.h"

namespace relight::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using google::protobuf::RepeatedPtrField;

constexpr std::size_t kMaxNameBytes = 512;

// Whoever checks the range sees a number that is just as much too large.
std::int64_t Signed(std::uint64_t value) {
  return static_cast<std::int64_t>(
      std::min<std::uint64_t>(value, std::numeric_limits<std::int64_t>::max()));
}

void CheckName(const std::string& name, int line, ConfigErrors& errors) {
  if (name.size() > kMaxNameBytes) {
    errors.Add(line,
               absl::StrCat("a name has ", name.size(), " bytes, the most is ", kMaxNameBytes));
  } else if (!IsUtf8(name)) {
    errors.Add(line, absl::StrCat("the name \"", Escape(name), "\" is not UTF-8"));
  }
}

std::optional<DType> ReadDatatype(const std::string& name, int line, ConfigErrors& errors) {
  if (name.empty()) return DType::kFloat32;
  if (name == "BYTES") {
    errors.Add(line,
               "datatype BYTES: a graph computes on numbers, so text cannot go in or come out; use "
               "a numeric datatype such as FP32 or INT64");
    return std::nullopt;
  }
  const std::optional<DType> dtype = DTypeFromProtocolName(name);
  if (!dtype.has_value()) {
    static const std::vector<std::string>* const kNames = new std::vector<std::string>{
        "BOOL",  "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16",
        "INT32", "INT64", "FP16",   "BF16",   "FP32",   "FP64"};
    errors.Add(line, absl::StrCat("unknown datatype \"", Escape(name), "\"",
                                  network::DidYouMean(name, *kNames)));
  }
  return dtype;
}

// Sets arguments of one kind or family from the fields of its message.
class ArgumentReader {
 public:
  ArgumentReader(const Message& message, const Place& place, ConfigErrors& errors)
      : message_(message), reflection_(*message.GetReflection()), place_(place), errors_(errors) {}

  void Read(const std::string& whose, const std::vector<network::Argument>& arguments) {
    std::vector<const FieldDescriptor*> given;
    reflection_.ListFields(message_, &given);
    for (const FieldDescriptor* const field : given) {
      const auto argument =
          std::find_if(arguments.begin(), arguments.end(),
                       [field](const network::Argument& one) { return field->name() == one.name; });
      if (argument == arguments.end()) {
        errors_.Add(place_.Line(field->name().c_str()),
                    absl::StrCat(whose, " has no argument ", field->name()));
        continue;
      }
      field_ = field;
      std::visit(*this, argument->field);
    }
  }

  void operator()(bool* out) const { *out = reflection_.GetBool(message_, field_); }
  void operator()(std::int64_t* out) const { *out = Integer(); }
  void operator()(std::optional<std::int64_t>* out) const { *out = Integer(); }
  void operator()(double* out) const { *out = reflection_.GetDouble(message_, field_); }
  void operator()(std::optional<double>* out) const {
    *out = reflection_.GetDouble(message_, field_);
  }
  void operator()(std::string* out) const { *out = reflection_.GetString(message_, field_); }
  void operator()(network::Sizes* out) const {
    out->clear();
    for (int i = 0; i < reflection_.FieldSize(message_, field_); ++i) {
      out->push_back(IsUnsigned() ? Signed(reflection_.GetRepeatedUInt64(message_, field_, i))
                                  : reflection_.GetRepeatedInt64(message_, field_, i));
    }
  }
  void operator()(std::vector<double>* out) const {
    out->clear();
    for (int i = 0; i < reflection_.FieldSize(message_, field_); ++i) {
      out->push_back(reflection_.GetRepeatedDouble(message_, field_, i));
    }
  }
  void operator()(DType* out) const {
    const int line = place_.Line(field_->name().c_str());
    *out = ReadDatatype(reflection_.GetString(message_, field_), line, errors_).value_or(*out);
  }

 private:
  bool IsUnsigned() const { return field_->cpp_type() == FieldDescriptor::CPPTYPE_UINT64; }
  std::int64_t Integer() const {
    return IsUnsigned() ? Signed(reflection_.GetUInt64(message_, field_))
                        : reflection_.GetInt64(message_, field_);
  }

  const Message& message_;
  const Reflection& reflection_;
  const Place& place_;
  ConfigErrors& errors_;
  const FieldDescriptor* field_ = nullptr;
};

// The kind that a layer says it is, by the name of the field that holds its arguments.
network::LayerKind ReadKind(const v1::Layer& layer, const Place& place, ConfigErrors& errors) {
  const auto* const kinds = v1::Layer::descriptor()->FindOneofByName("kind");
  const FieldDescriptor* const field = layer.GetReflection()->GetOneofFieldDescriptor(layer, kinds);
  if (field == nullptr) {
    errors.Add(place.line(),
               absl::StrCat("layer \"", Escape(layer.name()),
                            "\" does not say what it is, as in linear { out_features: 10 }"));
    return network::Identity{};
  }
  std::optional<network::LayerKind> kind = network::KindNamed(field->name());
  if (!kind.has_value()) {
    errors.Add(place.line(), absl::StrCat("this release has no layers of kind ", field->name()));
    return network::Identity{};
  }
  const Message& arguments = layer.GetReflection()->GetMessage(layer, field);
  const Place where = place.In(field->name().c_str(), arguments);
  ArgumentReader(arguments, where, errors).Read(field->name(), network::ArgumentsOf(*kind));
  return *std::move(kind);
}

std::vector<network::BlockEntry> ReadEntries(const RepeatedPtrField<v1::Layer>& layers,
                                             const Place& place, ConfigErrors& errors) {
  std::vector<network::BlockEntry> entries;
  for (const v1::Layer& layer : layers) {
    const Place where = place.In("layer", layer, static_cast<int>(entries.size()));
    CheckName(layer.name(), where.Line("name"), errors);
    const std::vector<std::string> inputs(layer.input().begin(), layer.input().end());
    if (!layer.has_block()) {
      entries.push_back({network::Layer{.name = layer.name(),
                                        .inputs = inputs,
                                        .kind = ReadKind(layer, where, errors),
                                        .parameters_of = layer.parameters_of(),
                                        .line = where.line()}});
      continue;
    }
    if (!layer.parameters_of().empty()) {
      errors.Add(where.Line("parameters_of"), "parameters_of is for layers, not for blocks");
    }
    const v1::Block& block = layer.block();
    entries.push_back({network::Block{
        .name = layer.name(),
        .inputs = inputs,
        .entries = ReadEntries(block.layer(), where.In("block", block), errors),
        .repeat = block.has_repeat() ? std::optional(Signed(block.repeat())) : std::nullopt,
        .first = Signed(block.first()),
        .line = where.line()}});
  }
  return entries;
}

}  // namespace

std::vector<TensorSpec> ReadTensors(const v1::ModelConfig& config, const Place& place,
                                    TensorRole role, ConfigErrors& errors) {
  const bool is_input = role == TensorRole::kInput;
  const char* field = is_input ? "input" : "output";
  std::vector<TensorSpec> specs;
  for (const v1::Tensor& tensor : is_input ? config.input() : config.output()) {
    const Place where = place.In(field, tensor, static_cast<int>(specs.size()));
    CheckName(tensor.name(), where.Line("name"), errors);
    const auto dtype = ReadDatatype(tensor.datatype(), where.Line("datatype"), errors);
    specs.push_back({.name = tensor.name(),
                     .dtype = dtype.value_or(DType::kFloat32),
                     .shape = {tensor.shape().begin(), tensor.shape().end()},
                     .line = where.line()});
  }
  return specs;
}

std::vector<network::BlockEntry> ReadLayers(const v1::Network& network, const Place& place,
                                            ConfigErrors& errors) {
  return ReadEntries(network.layer(), place, errors);
}

std::optional<network::Family> ReadFamily(const v1::ModelConfig& config, const Place& place,
                                          ConfigErrors& errors) {
  const auto* const graphs = v1::ModelConfig::descriptor()->FindOneofByName("graph");
  const Reflection& reflection = *config.GetReflection();
  const FieldDescriptor* const field = reflection.GetOneofFieldDescriptor(config, graphs);
  if (field == nullptr) return std::nullopt;
  std::optional<network::Family> family = network::FamilyNamed(field->name());
  if (!family.has_value()) return std::nullopt;
  const Message& arguments = reflection.GetMessage(config, field);
  const Place where = place.In(field->name().c_str(), arguments);
  ArgumentReader(arguments, where, errors).Read(field->name(), network::ArgumentsOf(*family));
  return family;
}

}  // namespace relight::config
