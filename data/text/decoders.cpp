// data/text/decoders.cpp -- zlib, liblzma and libzstd behind one interface. Several streams one
// after the other are one text, as for the command-line tools.
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <limits>

#include "data/text/byte_source.h"
#include "kernels/base/check.h"

namespace sluice {

namespace {

class GzipDecoder : public Decoder {
 public:
  GzipDecoder() { SLUICE_CHECK(inflateInit2(&z_, 16 + MAX_WBITS) == Z_OK, "zlib has no memory"); }
  ~GzipDecoder() override { inflateEnd(&z_); }

  size_t decode(std::string_view& in, bool, char* out, size_t size) override {
    if (in.empty()) return 0;
    if (between_) inflateReset(&z_);
    between_ = false;
    const auto offered = uInt(std::min<size_t>(size, std::numeric_limits<uInt>::max()));
    z_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
    z_.avail_in = uInt(in.size());
    z_.next_out = reinterpret_cast<Bytef*>(out);
    z_.avail_out = offered;
    const int status = inflate(&z_, Z_NO_FLUSH);
    in.remove_prefix(in.size() - z_.avail_in);
    between_ = status == Z_STREAM_END;
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
      throw Error(cat("broken gzip data: ", z_.msg ? z_.msg : zError(status)));
    return offered - z_.avail_out;
  }
  bool complete() const override { return between_; }

 private:
  z_stream z_{};
  bool between_ = false;
};

const char* reason(lzma_ret status) {
  switch (status) {
    case LZMA_FORMAT_ERROR: return "this is no xz file";
    case LZMA_OPTIONS_ERROR: return "a filter or check that liblzma does not know";
    case LZMA_DATA_ERROR: return "the data is damaged, its checksum does not fit";
    case LZMA_MEM_ERROR: return "no memory";
    default: return "liblzma gives up";
  }
}

class XzDecoder : public Decoder {
 public:
  XzDecoder() {
    const lzma_ret status = lzma_stream_decoder(&z_, UINT64_MAX, LZMA_CONCATENATED);
    SLUICE_CHECK(status == LZMA_OK, "liblzma: ", reason(status));
  }
  ~XzDecoder() override { lzma_end(&z_); }

  size_t decode(std::string_view& in, bool last, char* out, size_t size) override {
    z_.next_in = reinterpret_cast<const uint8_t*>(in.data());
    z_.avail_in = in.size();
    z_.next_out = reinterpret_cast<uint8_t*>(out);
    z_.avail_out = size;
    const lzma_ret status = lzma_code(&z_, last ? LZMA_FINISH : LZMA_RUN);
    in.remove_prefix(in.size() - z_.avail_in);
    complete_ = status == LZMA_STREAM_END;
    // A buffer error: no progress, since the input ended too early. The caller sees that.
    if (status != LZMA_OK && status != LZMA_STREAM_END && status != LZMA_BUF_ERROR)
      throw Error(cat("broken xz data: ", reason(status)));
    return size - z_.avail_out;
  }
  bool complete() const override { return complete_; }

 private:
  lzma_stream z_ = LZMA_STREAM_INIT;
  bool complete_ = false;
};

class ZstdDecoder : public Decoder {
 public:
  ZstdDecoder() : z_(ZSTD_createDStream()) {
    SLUICE_CHECK(z_, "libzstd has no memory");
    // Files of `zstd --long` have windows of up to 2 GiB; the memory is used by those alone.
    ZSTD_DCtx_setParameter(z_, ZSTD_d_windowLogMax, 31);
  }
  ~ZstdDecoder() override { ZSTD_freeDStream(z_); }

  size_t decode(std::string_view& in, bool, char* out, size_t size) override {
    ZSTD_inBuffer from{in.data(), in.size(), 0};
    ZSTD_outBuffer to{out, size, 0};
    const size_t status = ZSTD_decompressStream(z_, &to, &from);
    in.remove_prefix(from.pos);
    if (ZSTD_isError(status)) throw Error(cat("broken zstd data: ", ZSTD_getErrorName(status)));
    // With nothing to take and nothing to give, the status only says what a next frame would need.
    if (from.pos > 0 || to.pos > 0) complete_ = status == 0;
    return to.pos;
  }
  bool complete() const override { return complete_; }

 private:
  ZSTD_DStream* z_;
  bool complete_ = false;
};

}  // namespace

std::unique_ptr<Decoder> make_decoder(Compression compression) {
  switch (compression) {
    case Compression::gzip: return std::make_unique<GzipDecoder>();
    case Compression::xz: return std::make_unique<XzDecoder>();
    case Compression::zstd: return std::make_unique<ZstdDecoder>();
    case Compression::none: break;
  }
  return nullptr;
}

}  // namespace sluice
