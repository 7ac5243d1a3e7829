// Asks a server for one answer, as the README shows it. Exits with 0 when it came, with 3 when no
// server is there.
#include <relight/admin.h>
#include <relight/client.h>

#include <cstdio>
#include <utility>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: consumer HOST:PORT MODEL INPUT\n");
    return 2;
  }
  auto client = relight::client::Client::Connect(argv[1]);
  if (!client.ok()) {
    std::fprintf(stderr, "%s\n", client.status().ToString().c_str());
    return 2;
  }
  const std::vector<float> x = {1, 2, 3, 4};
  relight::client::InferRequest request;
  request.model = argv[2];
  request.inputs.push_back(relight::client::MakeTensor<float>(argv[3], {1, 4}, x));
  relight::client::CallOptions options;
  options.timeout = absl::Seconds(30);
  auto response = client->Infer(std::move(request), options);
  if (!response.ok()) {
    std::fprintf(stderr, "%s\n", response.status().ToString().c_str());
    return response.status().code() == absl::StatusCode::kUnavailable ? 3 : 1;
  }
  for (const relight::client::Tensor& output : response->outputs) {
    const auto values = output.Values<float>();
    if (!values.ok()) return 1;
    std::printf("%s", output.name.c_str());
    for (const float value : *values) std::printf(" %g", value);
    std::printf("\n");
  }
  return 0;
}
