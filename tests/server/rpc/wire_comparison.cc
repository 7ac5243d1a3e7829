#include "tests/server/rpc/wire_comparison.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <bit>

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

// Known fields alone, maps in order: equal messages give equal bytes, NaNs of one bit pattern too.
std::string Canonical(inference::ModelInferRequest message) {
  message.DiscardUnknownFields();
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream out(&stream);
  out.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&out);
  out.Trim();
  return bytes;
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
  if (Canonical(theirs) != Canonical(ours)) {
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

bool Same(const WireParameters& a, const WireParameters& b) {
  const auto same = [](const auto& one, const auto& other) {
    if (one.first != other.first || one.second.index() != other.second.index()) return false;
    const auto* x = std::get_if<double>(&one.second);
    const auto* y = std::get_if<double>(&other.second);
    // A NaN is the same where its bits are.
    if (x && y) return std::bit_cast<std::uint64_t>(*x) == std::bit_cast<std::uint64_t>(*y);
    return one.second == other.second;
  };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same);
}

bool Same(const std::vector<ByteSlices>& a, const std::vector<ByteSlices>& b) {
  return std::equal(
      a.begin(), a.end(), b.begin(), b.end(),
      [](const ByteSlices& x, const ByteSlices& y) { return Joined(x) == Joined(y); });
}

bool Same(const WireInput& a, const WireInput& b) {
  return a.name == b.name && a.datatype == b.datatype && a.shape == b.shape &&
         Same(a.parameters, b.parameters) && a.contents.counts == b.contents.counts &&
         Same(a.contents.messages, b.contents.messages);
}

bool Same(const WireRequestedOutput& a, const WireRequestedOutput& b) {
  return a.name == b.name && Same(a.parameters, b.parameters);
}

bool Same(const WireRequest& a, const WireRequest& b) {
  const auto same = [](const auto& x, const auto& y) { return Same(x, y); };
  return a.model_name == b.model_name && a.model_version == b.model_version && a.id == b.id &&
         Same(a.parameters, b.parameters) && Same(a.raw_inputs, b.raw_inputs) &&
         std::equal(a.inputs.begin(), a.inputs.end(), b.inputs.begin(), b.inputs.end(), same) &&
         std::equal(a.outputs.begin(), a.outputs.end(), b.outputs.begin(), b.outputs.end(), same);
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

std::string CompareSlicings(const std::string& bytes, const std::vector<std::size_t>& cuts,
                            const std::vector<std::size_t>& other_cuts) {
  const SlicedBytes slices(bytes, cuts);
  const SlicedBytes other_slices(bytes, other_cuts);
  const absl::StatusOr<WireRequest> got = DecodeInferRequest(slices.spans);
  const absl::StatusOr<WireRequest> other = DecodeInferRequest(other_slices.spans);
  if (got.status() != other.status()) {
    return "cut otherwise: " + got.status().ToString() + ", and " + other.status().ToString();
  }
  return !got.ok() || Same(*got, *other) ? "" : "cut otherwise, other values are found";
}

}  // namespace relight::rpc
