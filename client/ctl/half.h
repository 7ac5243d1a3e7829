// The 16-bit floats, which C++20 has no types for.
#ifndef RELIGHT_CLIENT_CTL_HALF_H_
#define RELIGHT_CLIENT_CTL_HALF_H_

#include <cstdint>

namespace relight::ctl {

// Round to nearest, ties to even; what is too large becomes infinity, NaN stays NaN.
std::uint16_t FloatToFp16(float value);
std::uint16_t FloatToBf16(float value);

float Fp16ToFloat(std::uint16_t bits);
float Bf16ToFloat(std::uint16_t bits);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_HALF_H_
