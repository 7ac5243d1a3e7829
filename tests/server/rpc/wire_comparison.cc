#include "tests/server/rpc/wire_comparison.h"

#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/util/message_differencer.h>

#include <algorithm>

namespace relight::rpc {
namespace {

inference::InferParameter ToProto(const WireParameter& parameter) {
  inference::InferParameter out;
  if (const auto* b = std::get_if<bool>(&parameter)) out.set_bool_param(*b);
  if (const auto* i = std::get_if<std::int64_t>(&parameter)) out.set_int64_param(*i);
  if (const auto* s = std::get_if<std::string>(&parameter)) out.set_string_param(*s);
  if (const auto* d = std::get_if<double>(&parameter)) out.set_double_param(*d);
  if (const auto* u = std::get_if<std::uint64_t>(&parameter)) out.set_uint64_param(*u);
  return out;
}

std::string Joined(const ByteSlices& slices) {
  std::string out;
  for (const ByteSpan& slice : slices) {
    out.append(reinterpret_cast<const char*>(slice.data()), slice.size());
  }
  return out;
}

std::uint64_t Count(const inference::InferTensorContents& contents, ContentKind kind) {
  const int counts[] = {0,
                        contents.bool_contents_size(),
                        contents.int_contents_size(),
                        contents.int64_contents_size(),
                        contents.uint_contents_size(),
                        contents.uint64_contents_size(),
                        contents.fp32_contents_size(),
                        contents.fp64_contents_size(),
                        contents.bytes_contents_size()};
  return static_cast<std::uint64_t>(counts[static_cast<std::size_t>(kind)]);
}

// Whether the two are the same, bit for bit (a NaN equals itself), without unknown fields.
bool Equal(inference::ModelInferRequest a, inference::ModelInferRequest b) {
  a.DiscardUnknownFields();
  b.DiscardUnknownFields();
  google::protobuf::util::MessageDifferencer differencer;
  google::protobuf::util::DefaultFieldComparator comparator;
  comparator.set_treat_nan_as_equal(true);
  differencer.set_field_comparator(&comparator);
  return differencer.Compare(a, b);
}

void DropEmptyContents(inference::ModelInferRequest& request) {
  for (auto& input : *request.mutable_inputs()) {
    input.DiscardUnknownFields();
    if (input.has_contents() && input.contents().ByteSizeLong() == 0) input.clear_contents();
  }
}

std::string Disagreement(const inference::ModelInferRequest& expected, const WireRequest& got) {
  inference::ModelInferRequest theirs = expected;
  inference::ModelInferRequest ours = ToProto(got);
  DropEmptyContents(theirs);
  DropEmptyContents(ours);
  if (!Equal(theirs, ours)) {
    return "values differ:\n" + theirs.ShortDebugString() + "\n" + ours.ShortDebugString();
  }
  for (int i = 0; i < expected.inputs_size(); ++i) {
    for (std::uint32_t kind = 1; kind < kContentKinds; ++kind) {
      const auto content_kind = static_cast<ContentKind>(kind);
      if (Count(expected.inputs(i).contents(), content_kind) !=
          got.inputs[static_cast<std::size_t>(i)].contents.count(content_kind)) {
        return "element counts differ in input " + std::to_string(i);
      }
    }
  }
  return "";
}

}  // namespace

SlicedBytes::SlicedBytes(const std::string& bytes, std::vector<std::size_t> cuts) {
  cuts.push_back(0);
  cuts.push_back(bytes.size());
  std::sort(cuts.begin(), cuts.end());
  const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
  for (std::size_t i = 1; i < cuts.size(); ++i) {
    owned.emplace_back(data + cuts[i - 1], data + cuts[i]);
  }
  for (const auto& piece : owned) spans.emplace_back(piece);
}

inference::ModelInferRequest ToProto(const WireRequest& request) {
  inference::ModelInferRequest out;
  out.set_model_name(request.model_name);
  out.set_model_version(request.model_version);
  out.set_id(request.id);
  for (const auto& [key, value] : request.parameters) {
    (*out.mutable_parameters())[key] = ToProto(value);
  }
  for (const WireInput& input : request.inputs) {
    auto* to = out.add_inputs();
    to->set_name(input.name);
    to->set_datatype(input.datatype);
    for (const std::int64_t dim : input.shape) to->add_shape(dim);
    for (const auto& [key, value] : input.parameters) {
      (*to->mutable_parameters())[key] = ToProto(value);
    }
    for (const ByteSlices& message : input.contents.messages) {
      to->mutable_contents()->MergeFromString(Joined(message));
    }
  }
  for (const WireRequestedOutput& output : request.outputs) {
    auto* to = out.add_outputs();
    to->set_name(output.name);
    for (const auto& [key, value] : output.parameters) {
      (*to->mutable_parameters())[key] = ToProto(value);
    }
  }
  for (const ByteSlices& raw : request.raw_inputs) out.add_raw_input_contents(Joined(raw));
  return out;
}

Comparison CompareWithProtobuf(const std::string& bytes, const std::vector<std::size_t>& cuts) {
  const google::protobuf::LogSilencer silence;
  Comparison out;
  auto slices = std::make_shared<const SlicedBytes>(bytes, cuts);
  absl::StatusOr<WireRequest> got = DecodeInferRequest(slices->spans);
  inference::ModelInferRequest expected;
  const bool parsed = expected.ParseFromString(bytes);
  out.accepted = got.ok();
  if (!got.ok()) {
    const std::string message(got.status().message());
    // The two things that the decoder refuses on purpose.
    const bool on_purpose = message.find("a group") != std::string::npos ||
                            message.find("more than 65536") != std::string::npos;
    if (parsed && !on_purpose) out.disagreement = "protobuf accepts what we refuse: " + message;
    return out;
  }
  if (!parsed) {
    out.disagreement = "protobuf refuses what we accept";
    return out;
  }
  out.disagreement = Disagreement(expected, *got);
  out.request = *std::move(got);
  out.slices = std::move(slices);
  return out;
}

}  // namespace relight::rpc
