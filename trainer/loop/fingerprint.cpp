// trainer/loop/fingerprint.cpp -- read off the machine and the build.
#include "trainer/loop/fingerprint.h"

#include <elf.h>
#include <fmt/format.h>
#include <gnu/libc-version.h>
#include <link.h>

#include <cstring>
#include <fstream>

#include "kernels/base/instruction_set.h"
#include "kernels/device/stream.h"
#include "kernels/gemm/gemm.h"
#ifdef SLUICE_CUDNN
#include "kernels/mla/cudnn.h"
#endif

namespace sluice {

static std::string cpu_model() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(": ") + 2);
  return "unknown";
}

// The GNU build id in one segment of notes: {name size, description size, type, name, description}.
static std::string build_id_in(const char* at, const char* end) {
  while (at + sizeof(ElfW(Nhdr)) <= end) {
    ElfW(Nhdr) note;
    std::memcpy(&note, at, sizeof note);
    const char* name = at + sizeof note;
    const char* id = name + (note.n_namesz + 3) / 4 * 4;
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0) {
      std::string hex;
      for (uint32_t i = 0; i < note.n_descsz; ++i)
        hex += fmt::format("{:02x}", static_cast<unsigned char>(id[i]));
      return hex;
    }
    at = id + (note.n_descsz + 3) / 4 * 4;
  }
  return "";
}

// Of the program itself, which is the first object, and of the kernels where they are a library;
// the linker makes it from all that an object contains.
static int read_build_id(dl_phdr_info* object, size_t, void* out) {
  std::string& ids = *static_cast<std::string*>(out);
  if (!ids.empty() && std::strstr(object->dlpi_name, "libsluice_kernels") == nullptr) return 0;
  std::string id;
  for (int i = 0; i < object->dlpi_phnum && id.empty(); ++i) {
    const ElfW(Phdr)& segment = object->dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const char* at = reinterpret_cast<const char*>(object->dlpi_addr + segment.p_vaddr);
    id = build_id_in(at, at + segment.p_memsz);
  }
  ids += ids.empty() ? (id.empty() ? "unknown" : id) : "+" + id;
  return 0;
}

static std::string build_id() {
  std::string ids;
  ::dl_iterate_phdr(read_build_id, &ids);
  return ids;
}

static std::string attention_library(const Context& ctx) {
#ifdef SLUICE_CUDNN
  if (ctx.device == Device::cuda) return CudnnAttention::library();
#endif
  return ctx.device == Device::cuda ? "none" : "sluice";
}

std::map<std::string, std::string> fingerprint(const Context& ctx, const MeshShape& mesh) {
  return {{"build", build_id()},
          {"compiler", __VERSION__},
          {"flags", SLUICE_BUILD_FLAGS},
          {"instruction_set", instruction_set()},
          {"cpu", cpu_model()},
          {"blas", gemm_library()},
          {"attention", attention_library(ctx)},
          {"libm", cat("glibc ", ::gnu_get_libc_version())},
          {"mesh", to_string(mesh)},
          {"device", ctx.device == Device::cuda ? gpu_name() : name(ctx.device)}};
}

}  // namespace sluice
