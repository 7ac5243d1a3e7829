// A server of the generated services, on a free loopback port and a Unix socket, that shares no
// code with relight's own: what the client's tests talk to.
//
// Models: "double" (input x FP32 [-1, 4], output y = 2 * x, answers raw), "typed" (the same,
// answers in typed contents), "echo" (returns every input as an output of its name), "slow"
// (answers only a caller who has given up), "held" (see Hold), "busy" (UNAVAILABLE), "lying" (an
// answer whose bytes miss its shape).
#ifndef RELIGHT_TESTS_CLIENT_FAKE_SERVER_H_
#define RELIGHT_TESTS_CLIENT_FAKE_SERVER_H_

#include <filesystem>
#include <memory>
#include <string>

namespace relight::client {

class FakeServer {
 public:
  FakeServer();
  ~FakeServer();

  std::string target() const;        // "127.0.0.1:PORT"
  std::string socket_path() const;   // Of the admin service.
  std::string admin_target() const;  // "unix:" and the socket's path.
  // A folder of this server's own, gone with it.
  const std::filesystem::path& folder() const { return folder_; }

  void SetServing(bool serving);  // Health; watchers hear of it.
  // Until Release, calls for the model "held" do not answer, and the server does not serve.
  void Hold();
  void Release();
  // What the last Snapshot request asked for, as text.
  std::string last_snapshot_request() const;
  // What the last push announced, as text, what its commit said, and the bytes that came. Of pushes
  // to "broken" it takes one chunk; "pinned" and "refusing" take them and do not serve them.
  std::string last_push_header() const;
  std::string last_push_sha256() const;
  std::string last_push_bytes() const;
  // Downloads are "hello"; of "lying" other bytes, of "short" fewer, of "broken" an error after
  // some, of "mute" nothing.
  std::string last_download_request() const;
  // Requests under way of "slow".
  int slow_requests() const;

 private:
  struct Impl;
  std::filesystem::path folder_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace relight::client

#endif  // RELIGHT_TESTS_CLIENT_FAKE_SERVER_H_
