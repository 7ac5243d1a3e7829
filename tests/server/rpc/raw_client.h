// A client of HTTP/2 frames, for what no gRPC client sends.
#ifndef RELIGHT_TESTS_SERVER_RPC_RAW_CLIENT_H_
#define RELIGHT_TESTS_SERVER_RPC_RAW_CLIENT_H_

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unique_fd.h"

namespace relight::rpc {

// Connects to a port on loopback and says hello.
class RawClient {
 public:
  enum FrameType : unsigned char { kData = 0, kHeaders = 1, kSettings = 4 };
  using Header = std::pair<std::string, std::string>;

  // `settings`: the payload of the client's first SETTINGS frame; empty for the defaults.
  explicit RawClient(int port, std::string_view settings = {})
      : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    Send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    SendFrame(kSettings, 0, 0, settings);
  }

  // The server may write no byte of a message to the client.
  static std::string NoWindow() { return std::string("\0\4\0\0\0\0", 6); }

  // Begins the call of `path` as stream 1 and sends its only message.
  void Call(const std::string& path, std::string_view message,
            const std::vector<Header>& more_headers = {}) {
    std::vector<Header> headers = {{":method", "POST"}, {":scheme", "http"},
                                   {":authority", "x"}, {":path", path},
                                   {"te", "trailers"},  {"content-type", "application/grpc"}};
    headers.insert(headers.end(), more_headers.begin(), more_headers.end());
    std::string block;
    for (const auto& [name, value] : headers) block += Literal(name) + Literal(value, false);
    SendFrame(kHeaders, kEndOfHeaders, 1, block);
    SendFrame(kData, kEndOfStream, 1,
              std::string(1, '\0') + BigEndian(message.size(), 4) + std::string(message));
  }

  // Waits for a frame of `type`; false where the server closes the connection first.
  bool WaitForFrame(FrameType type) {
    std::string header;
    while (Receive(9, header)) {
      std::size_t size = 0;
      for (int i = 0; i < 3; ++i)
        size = size << 8 | static_cast<unsigned char>(header[static_cast<std::size_t>(i)]);
      std::string payload;
      if (!Receive(size, payload)) return false;
      if (header[3] == static_cast<char>(type)) return true;
    }
    return false;
  }

 private:
  static constexpr unsigned char kEndOfStream = 1;
  static constexpr unsigned char kEndOfHeaders = 4;

  static std::string BigEndian(std::size_t value, int bytes) {
    std::string out;
    for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<char>(value >> (8 * i) & 0xff));
    return out;
  }

  // HPACK without indexing and without Huffman's code.
  static std::string Literal(const std::string& text, bool is_name = true) {
    EXPECT_LT(text.size(), 127u);
    return (is_name ? std::string(1, '\0') : std::string()) + BigEndian(text.size(), 1) + text;
  }

  void SendFrame(FrameType type, unsigned char flags, std::size_t stream,
                 std::string_view payload) {
    Send(BigEndian(payload.size(), 3) + BigEndian(type, 1) + BigEndian(flags, 1) +
         BigEndian(stream, 4) + std::string(payload));
  }

  void Send(std::string_view bytes) {
    EXPECT_EQ(::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }

  bool Receive(std::size_t size, std::string& out) {
    out.resize(size);
    if (size == 0) return true;
    return ::recv(fd_.get(), out.data(), size, MSG_WAITALL) == static_cast<ssize_t>(size);
  }

  const UniqueFd fd_;
};

}  // namespace relight::rpc

#endif  // RELIGHT_TESTS_SERVER_RPC_RAW_CLIENT_H_
