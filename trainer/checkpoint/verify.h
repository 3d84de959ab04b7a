// trainer/checkpoint/verify.h -- a file of a checkpoint against its manifest.
#pragma once

#include <string>
#include <vector>

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/manifest.h"

namespace sluice {

// Everything that is wrong with the file, "path: what, expected, got" each; empty: nothing. Throws
// if it cannot be read. Verify::sizes reads the header at most, Verify::contents every byte once.
std::vector<std::string> problems_of(const std::string& path, const ManifestFile& file,
                                     Verify verify);

// find_problems() by several ranks: this one reads every `shares`-th file, rank 0 the manifest too.
std::vector<std::string> find_problems(const CheckpointRef& ref, Verify verify, int share,
                                       int shares);

// "; 2 tensors changed: 'a' 'b'", of long lists the first ten; "" for none.
std::string describe(const char* what, const std::vector<std::string>& names);

}  // namespace sluice
