// data/encode/megatron.cpp -- both files mapped into memory; only what is looked at is read.
#include "data/encode/megatron.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "data/encode/encode.h"
#include "kernels/base/check.h"

namespace sluice {

namespace {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path) : path_(path) {
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) throw Error(cat(path, ": ", std::strerror(errno)));
    struct stat st {};
    const bool regular = fstat(file, &st) == 0 && S_ISREG(st.st_mode);
    size_ = regular ? size_t(st.st_size) : 0;
    if (size_ > 0) data_ = mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0);
    const int why = errno;
    close(file);
    if (!regular) throw Error(path + ": expected a file");
    if (data_ == MAP_FAILED) throw Error(cat(path, ": ", std::strerror(why)));
  }
  ~MappedFile() {
    if (size_ > 0) munmap(data_, size_);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  int64_t size() const { return int64_t(size_); }
  const char* at(int64_t byte) const { return static_cast<const char*>(data_) + byte; }
  template <class T>
  T value(int64_t byte) const {  // values are not aligned
    T v;
    std::memcpy(&v, at(byte), sizeof v);
    return v;
  }

 private:
  std::string path_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

constexpr std::string_view kMagic{"MMIDIDX\0\0", 9};
constexpr int64_t kHeader = 9 + 8 + 1 + 8 + 8;

struct Index {
  const MappedFile& file;
  int code = 0;
  int64_t width = 0, sequences = 0, documents = 0;

  int64_t length(int64_t s) const { return file.value<int32_t>(kHeader + 4 * s); }
  int64_t begin(int64_t s) const { return file.value<int64_t>(kHeader + 4 * sequences + 8 * s); }
  int64_t first_of(int64_t d) const {
    return file.value<int64_t>(kHeader + 12 * sequences + 8 * d);
  }
};

Index read_index(const MappedFile& f) {
  if (f.size() < kHeader || std::string_view(f.at(0), 9) != kMagic)
    throw Error(cat(f.path(), ": byte 0: expected a Megatron index (\"MMIDIDX\"), found ",
                    f.size() < kHeader ? cat("a file of ", f.size(), " bytes") : "something else"));
  Index index{f};
  if (const auto version = f.value<uint64_t>(9); version != 1)
    throw Error(cat(f.path(), ": byte 9: version: expected 1, found ", version));
  index.code = f.value<uint8_t>(17);
  constexpr int64_t kWidths[9] = {0, 1, 1, 2, 4, 8, 0, 0, 2};
  index.width = index.code <= 8 ? kWidths[index.code] : 0;
  if (index.width == 0)
    throw Error(cat(f.path(), ": byte 17: type code: expected one of integers (1 to 5, 8), found ",
                    index.code));
  const auto sequences = f.value<uint64_t>(18), entries = f.value<uint64_t>(26);
  const uint64_t most = uint64_t(f.size());  // no count can be above it; then nothing overflows
  if (sequences > most || entries > most || entries < 1 ||
      uint64_t(kHeader) + 12 * sequences + 8 * entries > most)
    throw Error(cat(f.path(), ": byte 18: ", sequences, " sequences and ", entries,
                    " entries of documents do not fit into its ", f.size(), " bytes"));
  index.sequences = int64_t(sequences);
  index.documents = int64_t(entries) - 1;
  const auto number = [&](int64_t d, int64_t found, int64_t least) {
    if (found < least || found > index.sequences)
      throw Error(cat(f.path(), ": byte ", kHeader + 12 * index.sequences + 8 * d,
                      ": document index: expected ", least, " to ", index.sequences, ", found ",
                      found));
  };
  for (int64_t d = 0, least = 0; d <= index.documents; least = index.first_of(d++))
    number(d, index.first_of(d), least);
  number(index.documents, index.first_of(index.documents), index.sequences);
  if (index.first_of(0) != 0)
    throw Error(
        cat(f.path(), ": document index: expected to start at 0, found ", index.first_of(0)));
  return index;
}

int64_t id_at(const MappedFile& bin, const Index& index, int64_t byte) {
  switch (index.code) {
    case 1: return bin.value<uint8_t>(byte);
    case 2: return bin.value<int8_t>(byte);
    case 3: return bin.value<int16_t>(byte);
    case 4: return bin.value<int32_t>(byte);
    case 5: return bin.value<int64_t>(byte);
    default: return bin.value<uint16_t>(byte);
  }
}

// The tokens of sequence s, checked, at the end of `ids`.
void read_sequence(const MappedFile& bin, const Index& index, int64_t s, int64_t vocab_size,
                   std::vector<int32_t>& ids) {
  const int64_t n = index.length(s), begin = index.begin(s);
  if (n < 0 || begin < 0 || begin > bin.size() || n > (bin.size() - begin) / index.width)
    throw Error(cat(bin.path(), ": has ", bin.size(), " bytes, but ", index.file.path(),
                    " says that sequence ", s, " has ", n, " tokens of ", index.width,
                    " bytes from byte ", begin));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t byte = begin + i * index.width, id = id_at(bin, index, byte);
    if (id < 0 || id >= vocab_size)
      throw Error(cat(bin.path(), ": byte ", byte, ": token ", id, " of sequence ", s,
                      ": expected an id below ", vocab_size, ", the tokenizer's vocabulary"));
    ids.push_back(int32_t(id));
  }
}

}  // namespace

MegatronImport import_megatron(const std::string& prefix, const Tokenizer& tokenizer,
                               const std::string& out,
                               const std::function<void(int64_t, int64_t)>& progress) {
  const MappedFile idx(prefix + ".idx"), bin(prefix + ".bin");
  const Index index = read_index(idx);
  if (index.documents == 0) throw Error(cat(idx.path(), ": no document in it"));
  ShardWriter writer(out, shard_info(tokenizer));
  MegatronImport result;
  std::vector<int32_t> ids;
  for (int64_t d = 0; d < index.documents; ++d) {
    ids.clear();
    for (int64_t s = index.first_of(d); s < index.first_of(d + 1); ++s)
      read_sequence(bin, index, s, tokenizer.vocab_size(), ids);
    if (!ids.empty() && ids.back() == tokenizer.end_of_text()) {
      ids.pop_back();
      ++result.ended;
    }
    writer.add_document(ids);
    if (progress && (d % 1024 == 0 || d + 1 == index.documents))
      progress(std::min(bin.size(), writer.tokens() * index.width), bin.size());
  }
  result.documents = writer.documents();
  result.tokens = writer.tokens();
  result.text_bytes = writer.text_bytes();
  writer.finish();
  return result;
}

}  // namespace sluice
