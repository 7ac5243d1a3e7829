#include "client/ctl/half.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace relight::ctl {
namespace {

constexpr int kFp16MantissaBits = 10;
constexpr int kFp16Bias = 15;
constexpr float kFp16Overflow =
    65520.0F;  // Halfway from the largest half to the next power of two.

}  // namespace

std::uint16_t FloatToFp16(float value) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(sign | 0x7E00);
  if (magnitude >= kFp16Overflow) return static_cast<std::uint16_t>(sign | 0x7C00);
  if (magnitude == 0) return sign;
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude = m * 2^exponent, 0.5 <= m < 1.
  // Below the smallest normal half the spacing stays that of the subnormals.
  const int spacing = std::max(exponent - 1, 1 - kFp16Bias) - kFp16MantissaBits;
  const auto units = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(magnitude, -spacing)));
  // A carry out of the mantissa lands in the exponent, where it belongs.
  const auto biased = static_cast<std::uint32_t>(spacing + kFp16MantissaBits + kFp16Bias - 1);
  return static_cast<std::uint16_t>(sign + (biased << kFp16MantissaBits) + units);
}

std::uint16_t FloatToBf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float Fp16ToFloat(std::uint16_t bits) {
  const int exponent = bits >> kFp16MantissaBits & 0x1F;
  const int mantissa = bits & 0x3FF;
  float magnitude = 0;
  if (exponent == 0x1F) {
    magnitude = mantissa == 0 ? std::numeric_limits<float>::infinity()
                              : std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), 1 - kFp16Bias - kFp16MantissaBits);
  } else {
    magnitude =
        std::ldexp(static_cast<float>(mantissa | 0x400), exponent - kFp16Bias - kFp16MantissaBits);
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

float Bf16ToFloat(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace relight::ctl
