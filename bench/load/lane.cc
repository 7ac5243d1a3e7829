#include "bench/load/lane.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace relight::bench {
namespace {

constexpr std::chrono::seconds kConnectTimeout{10};

std::string TextOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return {};
  std::string text;
  for (const grpc::Slice& slice : slices) {
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return text;
}

}  // namespace

std::int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Lane::Lane(const Request& request, int connections, OnDone on_done)
    : request_(request), on_done_(std::move(on_done)) {
  for (int i = 0; i < connections; ++i) {
    grpc::ChannelArguments arguments;
    // Channels to the same address would share one connection.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(-1);
    channels_.push_back(
        grpc::CreateCustomChannel(request.target, grpc::InsecureChannelCredentials(), arguments));
    stubs_.push_back(std::make_unique<grpc::GenericStub>(channels_.back()));
  }
}

absl::Status Lane::Connect() {
  for (const std::shared_ptr<grpc::Channel>& channel : channels_) {
    if (!channel->WaitForConnected(std::chrono::system_clock::now() + kConnectTimeout)) {
      return absl::UnavailableError(absl::StrCat("no server answers at ", request_.target));
    }
  }
  return absl::OkStatus();
}

void Lane::Send(std::int64_t due_ns) {
  Call* const call = Take();
  ++under_way_;
  call->due_ns = due_ns;
  call->context.emplace();
  call->answer.Clear();
  grpc::GenericStub& stub = *stubs_[next_stub_++ % stubs_.size()];
  call->reader = stub.PrepareUnaryCall(&*call->context, request_.method, request_.message, &queue_);
  call->reader->StartCall();
  call->reader->Finish(&call->answer, &call->status, call);
}

void Lane::Run() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
    Call* const call = static_cast<Call*>(tag);
    Record(*call);
    GiveBack(call);
    --under_way_;
    on_done_(*this);
  }
}

Lane::Call* Lane::Take() {
  MutexLock lock(mutex_);
  if (idle_.empty()) {
    calls_.push_back(std::make_unique<Call>());
    return calls_.back().get();
  }
  Call* const call = idle_.back();
  idle_.pop_back();
  return call;
}

void Lane::GiveBack(Call* call) {
  call->reader.reset();
  MutexLock lock(mutex_);
  idle_.push_back(call);
}

void Lane::Record(Call& call) {
  const std::int64_t latency_ns = NowNs() - call.due_ns;
  if (call.status.ok()) {
    if (!first_answer_.has_value()) first_answer_ = TextOf(call.answer);
    if (call.due_ns >= measure_from_ns_) latencies_.Add({call.due_ns, latency_ns});
    return;
  }
  Failures& failures = failures_[call.status.error_code()];
  if (failures.count++ == 0) failures.example = call.status.error_message();
}

}  // namespace relight::bench
