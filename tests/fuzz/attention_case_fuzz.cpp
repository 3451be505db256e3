#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "backend/error.h"
#include "backend/patterns/planner.h"
#include "pipelines/attention_case.h"

/// Specifications a few edits away from good ones, over good tensors: a case that can be planned,
/// or Error. The first byte chooses the specification; then three bytes an edit: overwrite, insert
/// or erase, where, and the letter.
namespace {

constexpr uint32_t kTokens = 24;

constexpr std::array kSpecs = {
    R"({"pattern":{"type":"dense"},"scale":0.5,"perturb":[0,1]})",
    R"({"pattern":{"type":"neighborhood","grid":[4,6],"window":[3,2],"stride":[1,2],)"
    R"("dilation":[1,3],"causal":[true,false]}})",
    R"({"pattern":{"type":"radial","frames":2,"tokens_per_frame":9,"tokens":24,"block":8,)"
    R"("decay":0.5,"sink_first_frame":true}})",
    R"({"pattern":{"type":"block_sparse","block_q":8,"block_k":8}})",
    R"({"pattern":{"type":"reordered","grid":[2,3,4],"orders":["FHW","WFH"],"text_tokens":0,)"
    R"("block_q":8,"block_k":8}})",
    R"({"pattern":{"type":"disc","grid":[4,5],"radius":2,"text_tokens":4}})"};

std::vector<std::byte> file_of(const std::string& spec) {
    nlohmann::json header{{"__metadata__", {{"spec", spec}}}};
    size_t end = 0;
    const auto add = [&](const char* name, const char* type, std::vector<size_t> shape,
                         size_t bytes) {
        header[name] = {{"dtype", type}, {"shape", shape}, {"data_offsets", {end, end + bytes}}};
        end += bytes;
    };
    for (const char* name : {"q", "k", "v"})
        add(name, "F16", {1, 2, kTokens, 8}, size_t{2} * 2 * kTokens * 8);
    add("block_mask", "U8", {1, 3, 3}, 9);
    const std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    std::vector<std::byte> file(8 + text.size() + end);
    const uint64_t length = text.size();
    std::memcpy(file.data(), &length, 8);
    std::memcpy(file.data() + 8, text.data(), text.size());
    return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    std::string spec = kSpecs[data[0] % kSpecs.size()];
    for (size_t i = 1; i + 2 < size && !spec.empty(); i += 3) {
        const size_t at = data[i + 1] % spec.size();
        const auto letter = static_cast<char>(data[i + 2]);
        if (data[i] % 3 == 0) spec[at] = letter;
        if (data[i] % 3 == 1) spec.insert(at, 1, letter);
        if (data[i] % 3 == 2) spec.erase(at, 1);
    }
    const auto file = file_of(spec);
    try {
        const auto c = fovea::read_attention_case(fovea::Weights::parse(file, "fuzz"));
        fovea::plan(c.pattern, {16, 16}, kTokens, kTokens);
    } catch (const fovea::Error&) {
    }
    return 0;
}
