// What the writer wrote against what it was written from: the same values in the same order, the
// same storages shared.
#ifndef RELIGHT_TESTS_STORAGE_TREE_COMPARISON_H_
#define RELIGHT_TESTS_STORAGE_TREE_COMPARISON_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "storage/tree.h"
#include "storage/write_plan.h"
#include "storage/writer.h"

namespace relight::storage {

// Says in what the places of two tensors that are otherwise equal differ; empty: in nothing.
using PlaceComparison =
    std::function<std::string(const TensorInfo& before, const TensorInfo& after)>;

// Compares the values themselves, lazy conjugation and negation carried out. Both sources must
// outlive the result.
PlaceComparison CompareValues(const StorageSource& before, const StorageSource& after);

class TreeComparison {
 public:
  // `plan` says what of `before` was to be written. All must outlive this object.
  TreeComparison(const Tree& before, const Tree& after, const WritePlan& plan,
                 PlaceComparison compare_places);

  // Where the values below `a` (before) and `b` (after) first differ: "/value 3/item 0: ...". Empty
  // where they do not. Touches the stack no deeper for a deeper tree.
  std::string Difference(NodeId a, NodeId b);

 private:
  // A pair that is still to be compared, and how it was reached.
  struct Visit {
    NodeId a = kNoNode;
    NodeId b = kNoNode;
    std::size_t parent = 0;
    const char* relation = "";
    std::size_t index = 0;
  };

  std::string Compare(std::size_t visit);
  std::string CompareContainers(std::size_t visit, NodeId a, NodeId b);
  std::string CompareTensors(const TensorInfo& a, const TensorInfo& b);
  // Equal storages before are equal storages afterwards, and no others are.
  std::string CompareStorages(std::uint32_t a, std::uint32_t b);
  std::string Path(std::size_t visit) const;

  const Tree& before_;
  const Tree& after_;
  const WritePlan& plan_;
  const PlaceComparison compare_places_;
  std::vector<Visit> visits_;
  std::map<std::uint32_t, std::uint32_t> to_after_;
  std::map<std::uint32_t, std::uint32_t> to_before_;
};

}  // namespace relight::storage

#endif  // RELIGHT_TESTS_STORAGE_TREE_COMPARISON_H_
