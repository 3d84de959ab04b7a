// model/export/engines/targets.h -- which engine can compute which model, before anything is
// written.
#pragma once

#include <string>
#include <vector>

#include "model/lm/config.h"

namespace sluice {

enum class Architecture {
  kimi_linear,  // KDA or GDN layers with MLA layers, dense or MoE
  deepseek_v3,  // MLA alone, with rotary positions
  fla_kda,      // KDA alone, dense
};
const char* name(Architecture a);

// The one that its layers ask for. Throws, saying what would have to change, if there is none.
Architecture architecture_of(const LmConfig& model);

bool is_engine(const std::string& engine);  // transformers, vllm, sglang, llama.cpp, fla
const char* engines_text();                 // "transformers, vllm, ..."

// Why `engine` cannot load the model or would compute something else: the keys, what they are and
// what they would have to be. Empty: it can. Sources: the engines' model classes as of 2026-09.
std::vector<std::string> obstacles(const LmConfig& model, const std::string& engine);

// What differs by less than rounding does, but differs: to be shown.
std::vector<std::string> remarks(const LmConfig& model, const std::string& engine);

}  // namespace sluice
