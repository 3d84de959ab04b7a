// tests/fuzz/tokenizer_fuzz.cpp -- any bytes: an Error, or a tokenizer that gives text back.
#include "data/tokenizer/encoder.h"
#include "kernels/base/check.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;
  static fuzz::MemoryFile file("tokenizer.json");
  static const std::string text =
      "It's 1984 \xe2\x80\x94 \xd0\xb4\xd0\xb0,\n\n  a\xff\xcc\x81!\t\xe6\xbc\xa2\xe5\xad\x97 aaaa "
      "bbbbbbbb";
  const std::string& path = file.fill(data, size);
  try {
    const Tokenizer t = Tokenizer::load(path);
    const std::vector<int32_t> ids = t.encode(text);
    for (const int32_t id : ids)
      if (id < 0 || id >= t.vocab_size()) std::abort();
    if (!t.normalizes() && t.decode(ids) != text) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
