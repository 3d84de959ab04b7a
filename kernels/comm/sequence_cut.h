// kernels/comm/sequence_cut.h -- packed documents whose N tokens are cut over P ranks: rank p has
// the rows from p * ceil(N / P) on, ceil(N / P) of them or what is left.
//
// A document may begin and end on any rank. It `enters` a rank that does not have its first token,
// and `leaves` one that does not have its last.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sluice {

struct SequenceCut {
  // cu_seqlens [S + 1] of all tokens: document d is rows cu_seqlens[d] .. cu_seqlens[d + 1].
  SequenceCut(std::span<const int32_t> cu_seqlens, int ranks, int rank);

  struct Part {  // of one rank
    int64_t begin, tokens;
    bool enters, leaves;
    int64_t first_end;   // rows of the document that enters
    int64_t last_begin;  // row at which the document that leaves begins
    // One document from the first row to the last, of which this rank has neither end.
    bool passes() const { return enters && leaves && last_begin == 0; }
  };
  const Part& mine() const { return parts[size_t(rank)]; }
  int64_t rows() const { return each; }  // what a part is filled up to where all are gathered

  int rank;
  int64_t all, each;        // N, ceil(N / P)
  std::vector<Part> parts;  // [P]
  // [S + 1] i32 of this rank's rows; documents without a token here are left out, the list is
  // filled up with empty ones.
  std::vector<int32_t> documents;
  // [S + 1] of its documents' keys: of the one that enters, all tokens up to this rank's last. They
  // are the rows keys_begin .. keys_begin + keys.back() of all.
  std::vector<int32_t> keys;
  int64_t keys_begin;

  // [S + 2] of `halo` rows before this rank's, then its own. The tokens among them that the first
  // document has there belong to it, the others are a document by themselves.
  std::vector<int32_t> documents_with_halo(int64_t halo) const;
};

}  // namespace sluice
