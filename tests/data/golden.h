// tests/data/golden.h -- the golden files of tests/golden/tokenizer (make.py there writes them).
#pragma once

#include <string>

#include "data/tokenizer/bpe_train.h"
#include "tests/support/folder.h"

namespace sluice::test {

inline const std::string kGolden = std::string(SLUICE_SOURCE_DIR) + "/tests/golden/tokenizer/";

inline BpeTraining trained(const std::string& pattern) {  // as make.py lets the program do it
  return train_bpe({file_bytes(kGolden + "text.txt")}, pattern, 420 - 257);
}

}  // namespace sluice::test
