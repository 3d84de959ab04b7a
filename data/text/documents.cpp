// data/text/documents.cpp -- empty lines, JSON lines.
#include "data/text/documents.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/base/check.h"

namespace sluice {

namespace {

using Take = std::function<void(std::string_view, bool begins, bool ends)>;

// Stretches of lines that are not empty.
void split_at_empty_lines(const Block& block, const Take& take) {
  const std::string_view text = block.text;
  bool mid_line = block.mid_line, begins = !block.begin.inside;
  size_t first = text.npos;  // of the document
  for (size_t at = 0; at < text.size();) {
    const size_t newline = text.find('\n', at);
    const size_t end = newline == text.npos ? text.size() : newline + 1;
    const std::string_view line = text.substr(at, end - at);
    const bool empty = !mid_line && (line == "\n" || line == "\r\n");
    if (empty && first != text.npos) {
      take(text.substr(first, at - first), begins, true);
      first = text.npos;
      begins = true;
    } else if (!empty && first == text.npos) {
      first = at;
    }
    mid_line = false;
    at = end;
  }
  if (first != text.npos) take(text.substr(first), begins, !block.end.inside);
}

std::string shortened(std::string_view s) {
  return std::string(s.substr(0, 60)) + (s.size() > 60 ? "..." : "");
}

void read_json_lines(const Block& block, const std::string& path, const std::string& field,
                     const Take& take) {
  int64_t number = block.begin.line;
  for (size_t at = 0; at < block.text.size(); ++number) {
    const size_t newline = std::min(block.text.find('\n', at), block.text.size());
    const std::string_view line = std::string_view(block.text).substr(at, newline - at);
    at = newline + 1;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    const auto refuse = [&](const std::string& what) {
      throw Error(cat(path, ":", number, ": ", what));
    };
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_discarded()) refuse(cat("expected a JSON object, got \"", shortened(line), "\""));
    if (!json.is_object() || !json.contains(field))
      refuse(cat("expected an object with \"", field, "\", got ", shortened(line)));
    if (!json[field].is_string())
      refuse(cat(field, ": expected a string, got ", shortened(json[field].dump())));
    take(json[field].get_ref<const std::string&>(), true, true);
  }
}

}  // namespace

void for_each_piece(const Block& block, const std::vector<InputFile>& inputs,
                    const TextOptions& options, const HoldOut& hold_out,
                    const std::function<void(const Piece&)>& take) {
  const InputFile& input = inputs[size_t(block.begin.input)];
  const Take give = [&](std::string_view text, bool begins, bool ends) {
    const bool held_out = block.held_out ? *block.held_out : held_out_by_hash(hold_out, text);
    take({text, begins, ends, held_out});
  };
  if (input.format == TextFormat::json_lines)
    read_json_lines(block, input.path == "-" ? "standard input" : input.path, options.field, give);
  else if (options.split == TextSplit::blank_lines)
    split_at_empty_lines(block, give);
  else
    give(block.text, !block.begin.inside, !block.end.inside);
}

Documents read_documents(const std::vector<InputFile>& inputs, const TextOptions& options,
                         const HoldOut& hold_out) {
  Documents out;
  BlockReader reader(inputs, options, hold_out);
  for (Block block; reader.next(block);)
    for_each_piece(block, inputs, options, hold_out, [&](const Piece& p) {
      auto& side = p.held_out ? out.held_out : out.kept;
      if (p.begins) side.emplace_back();
      side.back() += p.text;
    });
  if (out.kept.empty() && out.held_out.empty())
    throw Error(cat(inputs.front().path, ": no document in it"));
  return out;
}

}  // namespace sluice
