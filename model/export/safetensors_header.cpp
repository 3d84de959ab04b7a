// model/export/safetensors_header.cpp -- strict parsing: files come from strangers.
//
// A SAX parser and not a DOM: it sees repeated keys, which a DOM drops silently, and needs no more
// memory than the entries.
#include "model/export/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

namespace sluice {
namespace {

using nlohmann::json;

constexpr size_t kMaxNameBytes = 1024;

constexpr std::pair<DType, const char*> kTypes[] = {
    {DType::f32, "F32"}, {DType::f64, "F64"}, {DType::bf16, "BF16"},
    {DType::i32, "I32"}, {DType::i64, "I64"}, {DType::u8, "U8"},
};

// A name of a stranger in a message: not longer than a line.
std::string in_quotes(const std::string& s) {
  constexpr size_t kShown = 80;
  return s.size() <= kShown ? "'" + s + "'"
                            : cat("'", s.substr(0, kShown), "...' (", s.size(), " bytes)");
}

struct RawEntry {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape, offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

// Accepts exactly the header's structure; everything else is an Error that says where.
class HeaderSax final : public json::json_sax_t {
 public:
  explicit HeaderSax(const std::string& path) : path_(path) {}

  std::vector<RawEntry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { return wrong("null"); }
  bool boolean(bool) override { return wrong("a boolean"); }
  bool number_integer(int64_t v) override { return wrong(cat("the number ", v)); }
  bool number_float(double, const std::string& text) override {
    return wrong("the number " + text);
  }
  bool binary(json::binary_t&) override { return wrong("binary data"); }

  bool number_unsigned(uint64_t v) override {
    if (at_ != At::shape && at_ != At::offsets) return wrong(cat("the number ", v));
    (at_ == At::shape ? entries.back().shape : entries.back().offsets).push_back(v);
    return true;
  }
  bool string(std::string& v) override {
    if (at_ == At::metadata) return metadata[key_] = v, true;
    if (at_ != At::tensor || key_ != "dtype") return wrong("the string " + in_quotes(v));
    entries.back().dtype = v;
    return true;
  }
  bool start_object(size_t) override {
    if (at_ == At::start) {
      at_ = At::root;
    } else if (at_ == At::root && key_ == "__metadata__") {
      at_ = At::metadata;
    } else if (at_ == At::root) {
      entries.emplace_back().name = key_;
      at_ = At::tensor;
    } else {
      return wrong("an object");
    }
    return true;
  }
  bool end_object() override {
    if (at_ == At::tensor) {
      const RawEntry& e = entries.back();
      const char* missing = !e.has_dtype     ? "dtype"
                            : !e.has_shape   ? "shape"
                            : !e.has_offsets ? "data_offsets"
                                             : nullptr;
      SLUICE_CHECK(!missing, path_, ": header: tensor ", in_quotes(e.name), " has no ", missing);
    }
    at_ = at_ == At::root ? At::end : At::root;
    return true;
  }
  bool start_array(size_t) override {
    if (at_ != At::tensor || key_ == "dtype") return wrong("an array");
    at_ = key_ == "shape" ? At::shape : At::offsets;
    return true;
  }
  bool end_array() override {
    at_ = At::tensor;
    return true;
  }
  bool key(std::string& k) override {
    if (at_ == At::root) {
      SLUICE_CHECK(names_.insert(k).second, path_, ": header: ", in_quotes(k), " appears twice");
      if (k != "__metadata__") check_tensor_name(k, path_);
    } else if (at_ == At::metadata) {
      SLUICE_CHECK(!metadata.contains(k), path_, ": header: __metadata__ has ", in_quotes(k),
                   " twice");
    } else {
      RawEntry& e = entries.back();
      bool* const seen = k == "dtype"          ? &e.has_dtype
                         : k == "shape"        ? &e.has_shape
                         : k == "data_offsets" ? &e.has_offsets
                                               : nullptr;
      SLUICE_CHECK(seen, path_, ": header: tensor ", in_quotes(e.name), ": unknown field ",
                   in_quotes(k));
      SLUICE_CHECK(!*seen, path_, ": header: tensor ", in_quotes(e.name), ": field ", k,
                   " appears twice");
      *seen = true;
    }
    key_ = k;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const json::exception& e) override {
    fail(__FILE__, __LINE__, path_.c_str(),
         cat("header: bad JSON at byte ", position, ": ", e.what()));
  }

 private:
  enum class At { start, root, metadata, tensor, shape, offsets, end };

  bool wrong(const std::string& got) const {
    std::string where = "header", expected = "an object";
    if (at_ == At::metadata) {
      where += ": __metadata__: " + in_quotes(key_), expected = "a string";
    } else if (at_ == At::root) {
      where += ": " + in_quotes(key_);
    } else if (at_ != At::start) {
      where += ": tensor " + in_quotes(entries.back().name) + ": " + key_;
      expected = at_ != At::tensor ? "an integer >= 0"
                 : key_ == "dtype" ? "a string"
                                   : "an array of integers >= 0";
    }
    fail(__FILE__, __LINE__, path_.c_str(), cat(where, ": expected ", expected, ", got ", got));
  }

  const std::string& path_;
  At at_ = At::start;
  std::string key_;  // the last one
  std::unordered_set<std::string> names_;
};

SafetensorsEntry to_entry(const RawEntry& raw, int64_t data_bytes, const std::string& path) {
  const std::string where = cat(path, ": header: tensor ", in_quotes(raw.name));
  SafetensorsEntry e{.name = raw.name, .shape = {}};

  const auto type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                 [&](const auto& t) { return raw.dtype == t.second; });
  SLUICE_CHECK(type != std::end(kTypes), where, ": unknown dtype ", in_quotes(raw.dtype),
               ", expected F32, F64, BF16, I32, I64 or U8");
  e.dtype = type->first;

  SLUICE_CHECK(raw.offsets.size() == 2, where, ": data_offsets has ", raw.offsets.size(),
               " numbers, expected 2");
  const uint64_t begin = raw.offsets[0], end = raw.offsets[1];
  SLUICE_CHECK(begin <= end && end <= uint64_t(data_bytes), where, ": data_offsets [", begin, ", ",
               end, "], expected a range within the ", data_bytes, " bytes of data");
  e.begin = int64_t(begin), e.end = int64_t(end);

  int64_t bytes = size_of(e.dtype);
  for (const uint64_t d : raw.shape) {
    const bool fits = d <= uint64_t(std::numeric_limits<int64_t>::max()) &&
                      !__builtin_mul_overflow(bytes, int64_t(d), &bytes);
    SLUICE_CHECK(fits, where, ": the shape's number of bytes overflows 64 bits at dimension ", d);
    e.shape.push_back(int64_t(d));
  }
  SLUICE_CHECK(bytes == e.end - e.begin, where, ": ", to_string(e), " has ", bytes,
               " bytes, data_offsets [", begin, ", ", end, "] have ", end - begin);
  return e;
}

// Sorted by begin, tensors follow each other without a hole up to the end of the file.
void check_layout(const std::vector<SafetensorsEntry>& entries, int64_t data_bytes,
                  const std::string& path) {
  int64_t position = 0;
  const SafetensorsEntry* before = nullptr;
  for (const auto& e : entries) {
    SLUICE_CHECK(e.begin >= position, path, ": header: tensor ", in_quotes(e.name), " at [",
                 e.begin, ", ", e.end, "] overlaps ", before ? in_quotes(before->name) : "",
                 ", which ends at ", position);
    SLUICE_CHECK(e.begin == position, path, ": header: hole of ", e.begin - position,
                 " bytes before tensor ", in_quotes(e.name), " at [", e.begin, ", ", e.end, "]");
    position = e.end;
    before = &e;
  }
  SLUICE_CHECK(position == data_bytes, path, ": the tensors have ", position,
               " bytes of data, the file has ", data_bytes);
}

}  // namespace

void check_tensor_name(const std::string& name, const std::string& path) {
  SLUICE_CHECK(!name.empty() && name.size() <= kMaxNameBytes, path, ": tensor name ",
               in_quotes(name), ", expected 1 to ", kMaxNameBytes, " bytes");
  const bool printable =
      std::none_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  SLUICE_CHECK(printable, path, ": a tensor name of ", name.size(),
               " bytes has control characters");
  SLUICE_CHECK(name != "__metadata__", path, ": __metadata__ is no tensor name");
}

SafetensorsHeader parse_header(const std::string& json_text, int64_t data_bytes,
                               const std::string& path) {
  // The JSON library takes a NUL for the end of its input, and skips a byte order mark.
  const size_t nul = json_text.find('\0');
  SLUICE_CHECK(nul == std::string::npos, path, ": header: bad JSON: NUL at byte ", nul);
  SLUICE_CHECK(json_text.rfind("\xEF\xBB\xBF", 0) != 0, path,
               ": header: bad JSON: byte order mark");

  HeaderSax sax(path);
  json::sax_parse(json_text, &sax);

  SafetensorsHeader header;
  header.metadata = std::move(sax.metadata);
  header.entries.reserve(sax.entries.size());
  for (const RawEntry& raw : sax.entries) header.entries.push_back(to_entry(raw, data_bytes, path));
  // An empty tensor comes before the one that begins at the same byte.
  std::stable_sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_layout(header.entries, data_bytes, path);
  return header;
}

std::string format_header(const SafetensorsHeader& header, const std::string& path) {
  nlohmann::ordered_json root = nlohmann::ordered_json::object();
  if (!header.metadata.empty()) root["__metadata__"] = header.metadata;
  for (const SafetensorsEntry& e : header.entries) {
    const auto type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                   [&](const auto& t) { return e.dtype == t.first; });
    root.push_back(
        {e.name,
         {{"dtype", type->second}, {"shape", e.shape}, {"data_offsets", {e.begin, e.end}}}});
  }
  std::string text;
  try {
    text = root.dump();
  } catch (const json::exception& e) {  // a name that is no UTF-8
    fail(__FILE__, __LINE__, path.c_str(), cat("header: ", e.what()));
  }
  text.append((8 - text.size() % 8) % 8, ' ');
  SLUICE_CHECK(int64_t(text.size()) <= kMaxHeaderBytes, path, ": a header of ", text.size(),
               " bytes, the format allows ", kMaxHeaderBytes);
  return text;
}

}  // namespace sluice
