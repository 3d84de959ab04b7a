// data/encode/partial.h -- what an encoding has done so far, in the folder OUT.partial, so that a
// killed one goes on.
//
//   kept.tokens, held_out.tokens   ids as they will be in the shards, each document after its
//                                  end_of_text; appended to
//   journal.json                   the command, how much of these files counts, and where in the
//                                  inputs reading stands; replaced by a rename
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "data/text/blocks.h"

namespace sluice {

class Partial {
 public:
  struct Side {  // of the documents: 0 is kept, 1 is held out
    int64_t tokens = 0, documents = 0;
    uint32_t crc = 0;  // of the file
  };

  // Goes on with what is there, or begins. `job` is all that the result depends on. Throws, and
  // leaves everything as it is, if the folder is of another job or another process works in it.
  Partial(const std::string& out, const nlohmann::json& job, bool narrow);
  ~Partial();
  Partial(const Partial&) = delete;
  Partial& operator=(const Partial&) = delete;

  const std::string& folder() const { return folder_; }
  bool resumed() const { return resumed_; }
  bool committed() const { return committed_; }  // something: the same job may go on
  const Place& place() const { return place_; }
  int64_t text_bytes() const { return text_bytes_; }
  const Side& side(bool held_out) const { return sides_[held_out]; }

  void append(bool held_out, std::span<const int32_t> ids, int64_t documents);
  void commit(const Place& place, int64_t text_bytes);  // durable when it returns
  // All ids of a side, some at a time, compared with the crc at the end.
  void read(bool held_out, const std::function<void(std::span<const int32_t>)>& take) const;
  void remove();

 private:
  std::string name(bool held_out) const;
  void load();
  void open_tokens();

  std::string folder_;
  nlohmann::json job_;
  bool narrow_, resumed_ = false, committed_ = false;
  int lock_ = -1;
  std::array<int, 2> files_{-1, -1};
  std::array<Side, 2> sides_;
  Place place_;
  int64_t text_bytes_ = 0;
  std::vector<uint16_t> narrow_ids_;
};

}  // namespace sluice
