// tests/data/text_files.h -- compressed files, and text that is hard to cut.
#pragma once

#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <string>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/tensor/rng.h"
#include "tests/support/folder.h"
#include "tests/support/message.h"

namespace sluice::test {

inline std::string gzip(const std::string& text) {
  z_stream z{};
  SLUICE_CHECK(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK, "");
  std::string out(deflateBound(&z, text.size()) + 64, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = uInt(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = uInt(out.size());
  SLUICE_CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END, "");
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}
inline std::string xz(const std::string& text) {
  std::string out(lzma_stream_buffer_bound(text.size()), '\0');
  size_t size = 0;
  SLUICE_CHECK(
      lzma_easy_buffer_encode(0, LZMA_CHECK_CRC64, nullptr,
                              reinterpret_cast<const uint8_t*>(text.data()), text.size(),
                              reinterpret_cast<uint8_t*>(out.data()), &size, out.size()) == LZMA_OK,
      "");
  out.resize(size);
  return out;
}
// With a checksum, as the command-line tool writes it.
inline std::string zstd(const std::string& text) {
  ZSTD_CCtx* z = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1);
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress2(z, out.data(), out.size(), text.data(), text.size()));
  ZSTD_freeCCtx(z);
  return out;
}

// Words of several scripts, punctuation, runs of blanks and newlines, bytes that are no UTF-8; a
// pure function of seed. `empty_lines`: how many of a thousand words are followed by some.
inline std::string nasty_text(uint64_t seed, size_t bytes, uint64_t empty_lines) {
  static const std::vector<std::string> words = {"the",
                                                 " water",
                                                 "  gate",
                                                 "It's",
                                                 " don't",
                                                 "\xd0\xb2\xd0\xbe\xd0\xb4\xd0\xb0",  // Cyrillic
                                                 " 1234",
                                                 "5",
                                                 ".",
                                                 ",",
                                                 "!?",
                                                 " \"",
                                                 ")",
                                                 "\n",
                                                 "\r\n",
                                                 " \n",
                                                 "\t",
                                                 "\n ",
                                                 "\xe6\xb0\xb4\xe9\x97\xb8",
                                                 "\xe3\x80\x82",
                                                 "\xe3\x80\x80",  // Chinese, its stop and its blank
                                                 "\xc2\xa0",
                                                 "\xe2\x80\x83",
                                                 "\xe2\x80\x99s",
                                                 "\xc3\xa9t\xc3\xa9",
                                                 "\xcc\x81",
                                                 "\xf0\x9f\x8c\x8a",
                                                 "\xff",
                                                 "\xe6\xb0",
                                                 "'ll",
                                                 "'",
                                                 " '",
                                                 "<|endoftext|>",
                                                 "_",
                                                 " {",
                                                 "};"};
  std::string out;
  for (uint64_t i = 0; out.size() < bytes; ++i) {
    const uint64_t r = random_u64(seed, i);
    out += words[r % words.size()];
    if (r >> 32 & 1) out += ' ';
    if ((r >> 40) % 1000 < empty_lines) out += (r >> 50 & 1) ? "\n\n" : "\r\n\r\n\n";
  }
  return out;
}

}  // namespace sluice::test
