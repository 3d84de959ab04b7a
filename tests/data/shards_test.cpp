// tests/data/shards_test.cpp -- what is written is read back; what is damaged is named.
#include <zlib.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <thread>

#include "data/shards/hdf5_file.h"
#include "tests/data/shard_files.h"

#if defined(__SANITIZE_ADDRESS__)
#define SHARDS_TEST_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHARDS_TEST_ASAN
#endif
#endif
#ifdef SHARDS_TEST_ASAN
#include <sanitizer/lsan_interface.h>
#endif

namespace sluice {
namespace {

// HDF5 1.10 itself loses some memory when it meets damaged structures of its own. Memory that it
// pooled before is given back first, so that what it then loses was allocated in here.
struct HdfMayLeak {
#ifdef SHARDS_TEST_ASAN
  __lsan::ScopedDisabler off;
#endif
  HdfMayLeak() {
    H5garbage_collect();
  }
};

using namespace test;

// Opens the file for writing as any HDF5 program could.
void tamper(const std::string& path, const std::function<void(hid_t)>& change) {
  const H5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
  ASSERT_TRUE(file.ok());
  change(file);
}
void replace_attribute(hid_t file, const char* name, int64_t value) {
  ASSERT_GE(H5Adelete(file, name), 0);
  write_attribute(file, name, value);
}

void expect_equal_stream(const std::string& path, const ShardInfo& info,
                         const Documents& documents) {
  const std::vector<int32_t> want = stream_of(documents, info.end_of_text);
  const ShardReader reader(path);
  ASSERT_EQ(reader.tokens(), int64_t(want.size()));
  ASSERT_EQ(reader.documents(), int64_t(documents.size()));
  std::vector<int32_t> got(want.size());
  reader.read(0, reader.tokens(), got.data());
  EXPECT_EQ(got, want);
  int64_t bytes = 0, at = 0;
  for (const int32_t t : want) bytes += info.token_bytes[size_t(t)];
  EXPECT_EQ(reader.text_bytes(), bytes);
  EXPECT_EQ(reader.info().token_bytes, info.token_bytes);
  EXPECT_EQ(reader.info().vocab_size, info.vocab_size);
  EXPECT_EQ(reader.info().end_of_text, info.end_of_text);
  EXPECT_EQ(reader.info().tokenizer, info.tokenizer);
  for (size_t d = 0; d < documents.size(); ++d) {
    EXPECT_EQ(reader.offsets()[d], at);
    at += 1 + int64_t(documents[d].size());
  }
  EXPECT_EQ(reader.offsets().back(), at);
  // The ends in any stretch, by the chunk tables, against all of them.
  for (uint64_t i = 0; i < 50; ++i) {
    const auto begin = int64_t(random_u64(i, 0) % want.size());
    const auto end = begin + int64_t(random_u64(i, 1) % (want.size() - size_t(begin) + 1));
    const auto& all = reader.offsets();
    EXPECT_EQ(reader.document_ends(begin, end),
              std::vector<int64_t>(std::upper_bound(all.begin(), all.end(), begin),
                                   std::upper_bound(all.begin(), all.end(), end)));
  }
  EXPECT_EQ(reader.document_ends(0, at).size(), documents.size());
}

// More documents and chunks than a page of a table, documents of one token among them.
TEST(Shards, ManyPages) {
  const Folder folder;
  const Documents documents = make_documents(3 * kTablePage / 2, 2, 300);
  write_shard(folder / "a.h5", info_of(300), documents);
  expect_equal_stream(folder / "a.h5", info_of(300), documents);
  const ShardInfo info = info_of(300);
  {
    ShardWriter writer(folder / "b.h5", info);  // in parts: the same file, to the byte
    for (const auto& d : documents) {
      writer.begin_document();
      for (const int32_t id : d) writer.add_tokens({&id, 1});
    }
    writer.finish();
  }
  EXPECT_TRUE(file_bytes(folder / "a.h5") == file_bytes(folder / "b.h5"));
}

// 150 billion tokens, 300 GB if they were written: opened and read by what is asked for.
TEST(Shards, HugeOpensAtOnce) {
  const Folder folder;
  const std::string path = folder / "a.h5";
  const ShardInfo info = info_of(1000);
  constexpr int64_t kTokens = 150'000'000'000, kDocuments = kTokens / 1000, kAt = 100'000'000'000;
  const int64_t chunk = kAt / kShardChunk, chunks = (kTokens + kShardChunk - 1) / kShardChunk;
  write_shard(path, info, {{1}});
  const auto put = [](hid_t d, hid_t type, int64_t at, int64_t count, const void* data) {
    const hsize_t begin = hsize_t(at), n = hsize_t(count);
    const H5Handle space(H5Dget_space(d), H5Sclose),
        memory(H5Screate_simple(1, &n, nullptr), H5Sclose);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, &begin, nullptr, &n, nullptr);
    ASSERT_GE(H5Dwrite(d, type, memory, space, H5P_DEFAULT, data), 0);
  };
  tamper(path, [&](hid_t f) {
    const auto extended = [&](const char* name, int64_t count) {
      H5Handle d(H5Dopen2(f, name, H5P_DEFAULT), H5Dclose);
      const hsize_t n = hsize_t(count);
      EXPECT_GE(H5Dset_extent(d, &n), 0);
      return d;
    };
    const H5Handle tokens = extended("tokens", kTokens), crc = extended("chunk_crc", chunks),
                   largest = extended("chunk_largest", chunks),
                   before = extended("chunk_documents", chunks + 1),
                   offsets = extended("document_offsets", kDocuments + 1);
    std::vector<uint16_t> ids(
        static_cast<size_t>(kShardChunk));  // one chunk of 1000-token documents
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = uint16_t(i % 999);
    const std::vector<uint32_t> wide(ids.begin(), ids.end());
    const auto* bytes = reinterpret_cast<const Bytef*>(wide.data());
    const auto sum = uint32_t(crc32_z(0, bytes, 4 * wide.size()));
    const uint32_t most = 998;
    put(tokens, H5T_STD_U16LE, chunk * kShardChunk, kShardChunk, ids.data());
    put(crc, H5T_STD_U32LE, chunk, 1, &sum);
    put(largest, H5T_STD_U32LE, chunk, 1, &most);
    const int64_t first = chunk * kShardChunk / 1000 + 1,
                  last = (chunk + 1) * kShardChunk / 1000 + 1;
    put(before, H5T_STD_I64LE, chunk, 1, &first);
    put(before, H5T_STD_I64LE, chunk + 1, 1, &last);
    put(before, H5T_STD_I64LE, chunks, 1, &kDocuments);
    for (int64_t d = first; d <= last; ++d) {
      const int64_t at = 1000 * d;
      put(offsets, H5T_STD_I64LE, d, 1, &at);
    }
    put(offsets, H5T_STD_I64LE, kDocuments, 1, &kTokens);
  });
  const auto began = std::chrono::steady_clock::now();
  const ShardReader reader(path);
  std::vector<int32_t> row(4096);
  reader.read(kAt, 4096, row.data());
  const std::vector<int64_t> ends = reader.document_ends(kAt, kAt + 4096);
  const double ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
  EXPECT_EQ(reader.tokens(), kTokens);
  EXPECT_EQ(reader.documents(), kDocuments);
  for (int64_t i = 0; i < 4096; ++i)
    ASSERT_EQ(row[size_t(i)], (kAt - chunk * kShardChunk + i) % 999);
  EXPECT_EQ(ends, (std::vector<int64_t>{kAt + 1000, kAt + 2000, kAt + 3000, kAt + 4000}));
  std::cout << "  a shard of " << kTokens << " tokens: opened, and a row read, in " << ms << " ms; "
            << std::filesystem::file_size(path) << " bytes on disk\n";
  EXPECT_LT(ms, 1000) << "milliseconds; the rest is for a busy machine";
}

// 65536 is the last vocabulary of u16; lengths that end in, on and just over a chunk's edge.
TEST(Shards, RoundTrip) {
  const Folder folder;
  for (const int64_t vocab : {2, 300, 65536, 65537, 200000}) {
    const ShardInfo info = info_of(vocab);
    const Documents documents = make_documents(400, 400, vocab);
    write_shard(folder / "a.h5", info, documents);
    SCOPED_TRACE(vocab);
    expect_equal_stream(folder / "a.h5", info, documents);
  }
  for (const int64_t length :
       {int64_t(1), kShardChunk - 2, kShardChunk - 1, kShardChunk, 2 * kShardChunk}) {
    const Documents documents{std::vector<int32_t>(size_t(length), 5)};
    write_shard(folder / "b.h5", info_of(300), documents);
    SCOPED_TRACE(length);
    expect_equal_stream(folder / "b.h5", info_of(300), documents);
  }
}

TEST(Shards, RandomAccessFromThreads) {
  const Folder folder;
  const Documents documents = make_documents(600, 800, 1000);
  write_shard(folder / "a.h5", info_of(1000), documents);
  const std::vector<int32_t> want = stream_of(documents, 999);
  ASSERT_GT(want.size(), size_t(3 * kShardChunk));
  // Two readers of one file: HDF5 itself is one for the process.
  const ShardReader one(folder / "a.h5"), two(folder / "a.h5");
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 300; ++i) {
        const uint64_t begin = random_u64(t, 2 * i) % want.size();
        const uint64_t count =
            random_u64(t, 2 * i + 1) % std::min<uint64_t>(want.size() - begin + 1, 1000);
        std::vector<int32_t> got(count);
        (t % 2 ? one : two).read(int64_t(begin), int64_t(count), got.data());
        wrong[t] += !std::equal(got.begin(), got.end(), want.begin() + int64_t(begin));
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
  int32_t out[2];
  EXPECT_THROW(one.read(int64_t(want.size()) - 1, 2, out), Error);
  EXPECT_THROW(one.read(-1, 1, out), Error);
  EXPECT_THROW(one.read(INT64_MAX, 2, out), Error);  // begin + count overflows
  one.read(int64_t(want.size()), 0, out);
}

TEST(Shards, UnfinishedWriterLeavesNothing) {
  const Folder folder;
  const std::string path = folder / "a.h5";
  {
    ShardWriter writer(path, info_of(10));
    writer.add_document(std::vector<int32_t>{1, 2});
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
  write_shard(path, info_of(10), {{3, 4}});
  {
    ShardWriter writer(path, info_of(10));  // over an existing shard: that one stays as it was
    writer.add_document(std::vector<int32_t>{1, 2});
  }
  expect_equal_stream(path, info_of(10), {{3, 4}});
}

TEST(Shards, WriterRefuses) {
  const Folder folder;
  ShardWriter writer(folder / "a.h5", info_of(10));
  expect_contains(error_of([&] { writer.add_document(std::vector<int32_t>{10}); }), {"10"});
  EXPECT_THROW(writer.add_document(std::vector<int32_t>{-1}), Error);
  ShardInfo bad = info_of(10);
  bad.end_of_text = 10;
  expect_contains(error_of([&] { ShardWriter(folder / "b.h5", bad); }), {"end_of_text", "10"});
  bad = info_of(10);
  bad.token_bytes.pop_back();
  expect_contains(error_of([&] { ShardWriter(folder / "b.h5", bad); }), {"9", "10"});
  EXPECT_THROW(ShardWriter(folder / "no/such/folder.h5", info_of(10)), Error);

  ShardWriter done(folder / "c.h5", info_of(10));
  done.add_document(std::vector<int32_t>{1});
  done.finish();
  expect_contains(error_of([&] { done.finish(); }), {"finish"});
  expect_contains(error_of([&] { done.add_document(std::vector<int32_t>{1}); }), {"finish"});
}

// A refused document leaves no part of itself behind.
TEST(Shards, RefusedDocumentLeavesNoTokens) {
  const Folder folder;
  const std::string path = folder / "a.h5";
  ShardWriter writer(path, info_of(10));
  writer.add_document(std::vector<int32_t>{1, 2});
  EXPECT_THROW(writer.add_document(std::vector<int32_t>{3, 4, 11}), Error);
  writer.add_document(std::vector<int32_t>{5});
  writer.finish();
  expect_equal_stream(path, info_of(10), {{1, 2}, {5}});
}

class DamagedShard : public ::testing::Test {
 protected:
  void SetUp() override {
    write_shard(path_, info_of(1000), documents_);
    want_ = stream_of(documents_, 999);
  }
  std::string opening() {
    const std::string message = error_of([&] { ShardReader r(path_); });
    expect_contains(message, {path_});
    return message;
  }
  std::string reading() {
    const std::string message = error_of([&] {
      const ShardReader r(path_);
      std::vector<int32_t> out(size_t(r.tokens()));
      r.read(0, r.tokens(), out.data());
    });
    expect_contains(message, {path_});
    return message;
  }

  const Folder folder_;
  const std::string path_ = folder_ / "a.h5";
  const Documents documents_ = make_documents(300, 700, 1000);
  std::vector<int32_t> want_;
};

TEST_F(DamagedShard, MissingEmptyAndForeignFiles) {
  std::filesystem::remove(path_);
  expect_contains(opening(), {"No such file"});
  put_bytes(path_, "");
  expect_contains(opening(), {"empty"});
  put_bytes(path_, "In the beginning God created the heaven and the earth.");
  expect_contains(opening(), {"HDF5", "54 bytes"});
}

TEST_F(DamagedShard, TruncatedAtManyLengths) {
  const std::string bytes = file_bytes(path_);
  put_bytes(path_, bytes.substr(0, bytes.size() / 2));
  expect_contains(opening(), {"truncated", cat(bytes.size()), cat(bytes.size() / 2)});
  for (size_t keep = 1; keep < bytes.size(); keep += bytes.size() / 37) {
    put_bytes(path_, bytes.substr(0, keep));
    EXPECT_THROW(ShardReader r(path_), Error) << keep << " of " << bytes.size() << " bytes";
  }
}

TEST_F(DamagedShard, BitFlipInTokens) {
  // The first tokens of chunk 1, as they lie in the file.
  std::string bytes = file_bytes(path_), pattern;
  for (int i = 0; i < 8; ++i) {
    const auto id = uint16_t(want_[size_t(kShardChunk + i)]);
    pattern += {char(id & 255), char(id >> 8)};
  }
  const size_t at = bytes.find(pattern);
  ASSERT_NE(at, std::string::npos);
  for (const int bit : {0, 12}) {  // bit 12 makes an id of at least 4096: still a matter of the crc
    std::string flipped = bytes;
    flipped[at + size_t(bit / 8)] ^= char(1 << bit % 8);
    put_bytes(path_, flipped);
    expect_contains(reading(), {"crc32", "65536", "expected", "found"});
    const ShardReader reader(path_);  // what is not damaged can be read
    std::vector<int32_t> out(1000);
    reader.read(kShardChunk - 1000, 1000, out.data());
    EXPECT_TRUE(std::equal(out.begin(), out.end(), want_.begin() + kShardChunk - 1000));
    for (int twice = 0; twice < 2; ++twice)  // and what is, stays refused
      EXPECT_THROW(reader.read(kShardChunk, 1, out.data()), Error);
  }
}

// Any one bit of the file: either nothing that matters changed, or an error says so. Never a crash,
// never other tokens. 600 places, spread over what is not the unused, zero end of a chunk.
TEST_F(DamagedShard, AnyBitFlipIsHarmlessOrFound) {
  const HdfMayLeak scope;
  const Documents few = make_documents(40, 60, 1000);
  write_shard(path_, info_of(1000), few);
  const std::string bytes = file_bytes(path_);
  const std::vector<int32_t> want = stream_of(few, 999);
  const ShardInfo info = info_of(1000);
  const int64_t text_bytes = ShardReader(path_).text_bytes();
  const std::vector<int64_t> offsets = ShardReader(path_).offsets();
  int found = 0, harmless = 0;
  std::vector<size_t> places;
  for (size_t at = 0, used_until = 0; at < bytes.size(); ++at) {
    if (bytes[at] != 0) used_until = at + 64;  // zeros next to something are fields
    if (at < used_until) places.push_back(at);
  }
  for (size_t i = 0; i < 600; ++i) {
    const size_t at = places[i * places.size() / 600];
    std::string flipped = bytes;
    flipped[at] ^= char(1 << i % 8);
    put_bytes(path_, flipped);
    try {
      const ShardReader r(path_);
      std::vector<int32_t> got(size_t(r.tokens()));
      r.read(0, r.tokens(), got.data());
      EXPECT_EQ(got, want) << "byte " << at;
      EXPECT_EQ(r.offsets(), offsets) << "byte " << at;
      EXPECT_EQ(r.info().token_bytes, info.token_bytes) << "byte " << at;
      EXPECT_EQ(r.info().end_of_text, info.end_of_text) << "byte " << at;
      EXPECT_EQ(r.info().tokenizer, info.tokenizer) << "byte " << at;
      EXPECT_EQ(r.text_bytes(), text_bytes) << "byte " << at;
      ++harmless;
    } catch (const Error&) {
      ++found;
    }
  }
  std::cout << "  " << found << " flips found, " << harmless << " harmless, of a file of "
            << bytes.size() << " bytes\n";
  EXPECT_GT(found, 0);
}

TEST_F(DamagedShard, WrongTypes) {
  tamper(path_, [&](hid_t f) {
    H5Ldelete(f, "tokens", H5P_DEFAULT);
    write_all(f, "tokens", H5T_IEEE_F32LE, std::vector<float>(want_.size()).data(),
              int64_t(want_.size()));
  });
  expect_contains(opening(), {"tokens", "u16", "f32"});
  tamper(path_, [&](hid_t f) {
    H5Ldelete(f, "tokens", H5P_DEFAULT);
    write_all(f, "tokens", H5T_STD_I16LE, std::vector<int16_t>(want_.size()).data(),
              int64_t(want_.size()));
  });
  expect_contains(opening(), {"tokens", "u16", "i16"});
  write_shard(path_, info_of(1000), documents_);
  tamper(path_, [&](hid_t f) {
    H5Adelete(f, "vocab_size");
    write_attribute(f, "vocab_size", std::string("1000"));
  });
  expect_contains(opening(), {"vocab_size", "integer"});
  write_shard(path_, info_of(1000), documents_);
  tamper(path_, [&](hid_t f) {  // more than the reader has room for
    H5Adelete(f, "vocab_size");
    const hsize_t n = 64;
    const H5Handle space(H5Screate_simple(1, &n, nullptr), H5Sclose);
    const H5Handle a(H5Acreate2(f, "vocab_size", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT),
                     H5Aclose);
    H5Awrite(a, H5T_NATIVE_INT64, std::vector<int64_t>(64, 1000).data());
  });
  expect_contains(opening(), {"vocab_size", "64"});
}

TEST_F(DamagedShard, IdOutsideTheVocabulary) {
  std::vector<uint16_t> tokens(want_.begin(), want_.end());
  tokens[70000] = 1000;
  tamper(path_, [&](hid_t f) {  // by a program that also wrote a fitting checksum
    H5Ldelete(f, "tokens", H5P_DEFAULT);
    write_all(f, "tokens", H5T_STD_U16LE, tokens.data(), int64_t(tokens.size()));
    std::vector<uint32_t> wide(tokens.begin(), tokens.end()), crc;
    for (size_t at = 0; at < wide.size(); at += size_t(kShardChunk)) {
      const size_t n = std::min(wide.size() - at, size_t(kShardChunk));
      crc.push_back(uint32_t(crc32_z(0, reinterpret_cast<const Bytef*>(&wide[at]), 4 * n)));
    }
    H5Ldelete(f, "chunk_crc", H5P_DEFAULT);
    write_all(f, "chunk_crc", H5T_STD_U32LE, crc.data(), int64_t(crc.size()));
  });
  expect_contains(reading(), {"tokens 65536 to", "largest id expected", "found 1000"});
  tamper(path_, [&](hid_t f) {  // and a fitting largest id
    H5Ldelete(f, "chunk_largest", H5P_DEFAULT);
    std::vector<uint32_t> largest;
    for (size_t at = 0; at < tokens.size(); at += size_t(kShardChunk))
      largest.push_back(*std::max_element(
          tokens.begin() + int64_t(at),
          tokens.begin() + int64_t(std::min(tokens.size(), at + size_t(kShardChunk)))));
    write_all(f, "chunk_largest", H5T_STD_U32LE, largest.data(), int64_t(largest.size()));
  });
  expect_contains(reading(), {"vocab_size", "1000", "70000"});
}

TEST_F(DamagedShard, MetadataMissingOrWrong) {
  for (const char* name : {"format_version", "vocab_size", "end_of_text", "text_bytes", "tokenizer",
                           "crc_token_bytes"}) {
    write_shard(path_, info_of(1000), documents_);
    tamper(path_, [&](hid_t f) { H5Adelete(f, name); });
    expect_contains(opening(), {name, "none"});
  }
  for (const char* name : {"tokens", "document_offsets", "token_bytes", "chunk_crc",
                           "chunk_largest", "chunk_documents"}) {
    write_shard(path_, info_of(1000), documents_);
    tamper(path_, [&](hid_t f) { H5Ldelete(f, name, H5P_DEFAULT); });
    expect_contains(opening(), {name, "none"});
  }
  const std::vector<std::pair<const char*, int64_t>> wrong = {
      {"format_version", 3}, {"end_of_text", 1000}, {"end_of_text", -1},
      {"vocab_size", -5},    {"vocab_size", 0},     {"vocab_size", int64_t(1) << 40}};
  for (const auto& [name, value] : wrong) {
    write_shard(path_, info_of(1000), documents_);
    tamper(path_, [&, n = name, v = value](hid_t f) { replace_attribute(f, n, v); });
    expect_contains(opening(), {name, cat(value), "expected"});
  }
}

TEST_F(DamagedShard, AnOlderFormatSaysWhatToDo) {
  tamper(path_, [&](hid_t f) { replace_attribute(f, "format_version", 1); });
  expect_contains(opening(),
                  {"found 1", "sluice data encode TEXT --tokenizer TOKENIZER --out " + path_});
}

TEST_F(DamagedShard, OffsetsNotRising) {
  std::vector<int64_t> offsets = ShardReader(path_).offsets();
  std::swap(offsets[3], offsets[4]);
  const auto put = [&] {
    tamper(path_, [&](hid_t f) {
      H5Ldelete(f, "document_offsets", H5P_DEFAULT);
      write_all(f, "document_offsets", H5T_STD_I64LE, offsets.data(), int64_t(offsets.size()));
    });
  };
  put();
  const std::string message = error_of([&] { ShardReader(path_).offsets(); });
  expect_contains(message, {path_, "document_offsets", cat(offsets[3]), cat(offsets[4])});
  int32_t token = 0;
  ShardReader(path_).read(0, 1, &token);  // tokens need no offsets
  offsets.back() += 1;
  put();
  expect_contains(opening(), {"document_offsets", cat(offsets.back())});
}

// A flip in a page of a table: HDF5's checksum of it.
TEST_F(DamagedShard, BitFlipInOffsets) {
  std::string bytes = file_bytes(path_), pattern;
  const std::vector<int64_t> offsets = ShardReader(path_).offsets();
  for (int i = 0; i < 8; ++i) pattern += char(uint64_t(offsets[100]) >> 8 * i & 255);
  const size_t at = bytes.find(pattern);
  ASSERT_NE(at, std::string::npos);
  bytes[at] ^= 1;
  put_bytes(path_, bytes);
  expect_contains(opening(), {"document_offsets", "cannot be read", "hecksum"});
}

}  // namespace
}  // namespace sluice
