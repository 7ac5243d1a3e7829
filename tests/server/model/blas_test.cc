#include "server/model/blas.h"

#include "gtest/gtest.h"

namespace relight::model {
namespace {

TEST(BlasTest, NamesTheKernelsOfOpenBlas) {
  const BlasName blas = ClassifyBlas({"SkylakeX", false, "/usr/lib/libblas.so.3"});
  EXPECT_EQ(blas.name, "OpenBLAS SkylakeX");
  EXPECT_FALSE(blas.slow);
}

TEST(BlasTest, TheReferenceBlasIsSlow) {
  const BlasName blas = ClassifyBlas({std::nullopt, false, "7f00 r-xp /usr/lib/libblas.so.3.11.0"});
  EXPECT_EQ(blas.name, "reference");
  EXPECT_TRUE(blas.slow);
}

TEST(BlasTest, OthersAreNotSlow) {
  EXPECT_EQ(ClassifyBlas({std::nullopt, true, ""}).name, "MKL");
  EXPECT_EQ(ClassifyBlas({std::nullopt, false, "/opt/libmkl_core.so"}).name, "MKL");
  EXPECT_EQ(ClassifyBlas({std::nullopt, false, "/usr/lib/libblis.so.4"}).name, "BLIS");
  EXPECT_EQ(ClassifyBlas({std::nullopt, false, ""}).name, "unknown");
  EXPECT_FALSE(ClassifyBlas({std::nullopt, false, ""}).slow);
}

constexpr bool kAvx512 = true;

TEST(ShouldExecuteAgainTest, WhereANewCpuWasTakenForAHaswell) {
  EXPECT_TRUE(ShouldExecuteAgain({"Haswell", kAvx512, false, false}));
}

TEST(ShouldExecuteAgainTest, NotWhereTheKernelsFitTheCpu) {
  EXPECT_FALSE(ShouldExecuteAgain({"Haswell", !kAvx512, false, false}));
  EXPECT_FALSE(ShouldExecuteAgain({"SkylakeX", kAvx512, false, false}));
  EXPECT_FALSE(ShouldExecuteAgain({std::nullopt, kAvx512, false, false}));
}

TEST(ShouldExecuteAgainTest, NotAgainstTheUsersChoice) {
  EXPECT_FALSE(ShouldExecuteAgain({"Haswell", kAvx512, true, false}));
}

TEST(ShouldExecuteAgainTest, NotTwice) {
  EXPECT_FALSE(ShouldExecuteAgain({"Haswell", kAvx512, false, true}));
}

}  // namespace
}  // namespace relight::model
