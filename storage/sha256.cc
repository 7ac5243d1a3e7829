#include "storage/sha256.h"

#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace relight::storage {

struct Sha256::Context {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> evp{EVP_MD_CTX_new(), &EVP_MD_CTX_free};
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  EVP_DigestInit_ex(context_->evp.get(), EVP_sha256(), nullptr);
}

Sha256::~Sha256() = default;

void Sha256::Update(absl::Span<const std::byte> bytes) {
  EVP_DigestUpdate(context_->evp.get(), bytes.data(), bytes.size());
}

std::string Sha256::FinishHex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  EVP_DigestFinal_ex(context_->evp.get(), digest.data(), &length);
  const std::string_view bytes(reinterpret_cast<const char*>(digest.data()), length);
  return std::string(absl::BytesToHexString({bytes.data(), bytes.size()}));
}

absl::StatusOr<std::string> Sha256OfFile(int fd, std::uint64_t size_bytes,
                                         const std::function<absl::Status()>& pace) {
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  Sha256 hash;
  for (std::uint64_t at = 0; at < size_bytes;) {
    if (pace) RELIGHT_RETURN_IF_ERROR(pace());
    const std::size_t want = std::min<std::uint64_t>(buffer.size(), size_bytes - at);
    const ssize_t got = ::pread(fd, buffer.data(), want, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return absl::UnavailableError(absl::StrCat("cannot read: ", std::strerror(errno)));
    }
    if (got == 0) {
      return absl::DataLossError(
          absl::StrCat("the file ends at ", at, " of ", size_bytes, " bytes"));
    }
    hash.Update(absl::MakeConstSpan(buffer).first(static_cast<std::size_t>(got)));
    at += static_cast<std::uint64_t>(got);
  }
  return hash.FinishHex();
}

}  // namespace relight::storage
